//! The picture as text: boxes of lines, for a terminal or a mail.

use super::{Flow, FlowKind, HostBox, Mood, Picture, SiteBox};
use cluster::name::{DatabaseName, HostName};
use std::collections::BTreeMap;

/// Between two sites that stand side by side.
const GUTTER: usize = 26;
/// Rows between two hosts, the second of which is fed by the first.
const ARROW_ROWS: usize = 2;

/// Draw the picture in at most `columns` columns; sites stand one below the other where they do not fit side by side.
pub fn draw(picture: &Picture, columns: usize) -> String {
    let inner = picture.sites.iter().flat_map(|s| &s.hosts).map(host_width).max().unwrap_or(20);
    let names = picture.sites.iter().map(|s| width(&s.name) + width(&s.note) + 4).max().unwrap_or(0);
    let site_width = inner.max(names) + 4;
    let beside = picture.sites.len() > 1 && 2 * site_width + GUTTER <= columns;
    let mut canvas = Canvas::default();
    canvas.put(0, 0, &format!("{} · {}", picture.title, picture.subtitle));
    let mut places = BTreeMap::new();
    let mut top = 2;
    let mut bottom = 2;
    let tallest = picture.sites.iter().map(|s| site_height(s, &picture.flows)).max().unwrap_or(0);
    for (index, site) in picture.sites.iter().enumerate() {
        let left = if beside { index * (site_width + GUTTER) } else { 0 };
        let height = if beside { tallest } else { site_height(site, &picture.flows) };
        draw_site(&mut canvas, site, &picture.flows, (left, top, site_width, height), &mut places);
        bottom = bottom.max(top + height);
        if !beside {
            top += height + 1;
        }
    }
    let mut below = Vec::new();
    let mut drawn = 0;
    for flow in &picture.flows {
        let ends = places.get(&(&flow.from, &flow.database)).zip(places.get(&(&flow.to, &flow.database)));
        match ends {
            Some((from, to)) if beside && from.left != to.left => {
                across(&mut canvas, *from, *to, site_width, drawn, flow);
                drawn += 1;
            }
            _ if adjacent(&picture.sites, flow) => {}
            _ => below.push(format!(
                "{}: {} {}▶ {}  {}",
                flow.database,
                flow.from,
                dash(flow, true),
                flow.to,
                flow.label
            )),
        }
    }
    for share in &picture.shares {
        let from = share.from.as_ref().map_or(String::new(), |h| format!("{h} ──▶ "));
        let to = share.to.as_ref().map_or(String::new(), |h| format!(" ──▶ {h}"));
        below.push(format!("{}: {from}[ share {} ]{to}", share.database, share.path));
    }
    for (database, dsn) in &picture.existing {
        below.push(format!("{database}: operated by somebody else, {dsn}"));
    }
    for (index, line) in below.iter().enumerate() {
        canvas.put(0, bottom + 1 + index, line);
    }
    canvas.text()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn host_width(host: &HostBox) -> usize {
    let head = width(host.name.as_str()) + width(&host.note) + 10;
    host.rows.iter().map(|r| width(&r.what) + width(&r.state) + 8).max().unwrap_or(0).max(head).max(30)
}

fn site_height(site: &SiteBox, flows: &[Flow]) -> usize {
    let boxes: usize = site.hosts.iter().map(|h| h.rows.len() + 2).sum();
    let arrows = site.hosts.windows(2).filter(|pair| between(pair, flows).is_some()).count();
    boxes + arrows * ARROW_ROWS + 2
}

/// The flow between two hosts that stand one below the other, and whether it goes down.
fn between<'f>(pair: &[HostBox], flows: &'f [Flow]) -> Option<(&'f Flow, bool)> {
    let [upper, lower] = pair else { return None };
    flows.iter().find_map(|f| match (f.from == upper.name, f.to == lower.name) {
        (true, true) => Some((f, true)),
        _ if f.from == lower.name && f.to == upper.name => Some((f, false)),
        _ => None,
    })
}

fn adjacent(sites: &[SiteBox], flow: &Flow) -> bool {
    let found = |pair: &[HostBox]| between(pair, std::slice::from_ref(flow)).is_some();
    sites.iter().any(|s| s.hosts.windows(2).any(found))
}

/// Where the line of a database on a host stands.
#[derive(Clone, Copy)]
struct Place {
    /// Left edge of the site's box.
    left: usize,
    /// The row.
    row: usize,
}

type Places<'a> = BTreeMap<(&'a HostName, &'a DatabaseName), Place>;

fn draw_site<'a>(
    canvas: &mut Canvas,
    site: &'a SiteBox,
    flows: &[Flow],
    (left, top, wide, high): (usize, usize, usize, usize),
    places: &mut Places<'a>,
) {
    canvas.frame(left, top, wide, high, &site.name, &site.note);
    let mut y = top + 1;
    for (index, host) in site.hosts.iter().enumerate() {
        canvas.frame(left + 2, y, wide - 4, host.rows.len() + 2, host.name.as_str(), &host.note);
        for (row, what) in host.rows.iter().enumerate() {
            let at = y + 1 + row;
            canvas.put(left + 4, at, &format!("{} {}", sign(what.mood), what.what));
            canvas.put(left + wide - 4 - width(&what.state), at, &what.state);
            if let Some(database) = &what.database {
                places.insert((&host.name, database), Place { left, row: at });
            }
        }
        y += host.rows.len() + 2;
        if let Some((flow, down)) = site.hosts.get(index..index + 2).and_then(|pair| between(pair, flows)) {
            let line = dash(flow, false);
            let (first, second) = if down { (line, '▼') } else { ('▲', line) };
            canvas.put(left + 6, y, &format!("{first} {}", flow.label));
            canvas.put(left + 6, y + 1, &second.to_string());
            y += ARROW_ROWS;
        }
    }
}

/// A flow between sites that stand side by side.
fn across(canvas: &mut Canvas, from: Place, to: Place, site_width: usize, index: usize, flow: &Flow) {
    let (left, right) = (from.left.min(to.left) + site_width, from.left.max(to.left) - 1);
    let rightward = from.left < to.left;
    let (left_row, right_row) = if rightward { (from.row, to.row) } else { (to.row, from.row) };
    let middle = left + 3 + 2 * index;
    let line = dash(flow, true);
    (left + 1..middle).for_each(|x| canvas.dot(x, left_row, line));
    (middle..right).for_each(|x| canvas.dot(x, right_row, line));
    if left_row != right_row {
        let (high, low) = (left_row.min(right_row), left_row.max(right_row));
        (high + 1..low).for_each(|y| canvas.dot(middle, y, dash(flow, false)));
        canvas.dot(middle, left_row, if left_row < right_row { '┐' } else { '┘' });
        canvas.dot(middle, right_row, if left_row < right_row { '└' } else { '┌' });
    }
    if rightward {
        canvas.dot(right - 1, right_row, '▶');
    } else {
        canvas.dot(left + 1, left_row, '◀');
    }
    canvas.put(middle + 2, right_row - 1, &flow.label);
}

/// The line of a flow: double where commits wait for it, broken where it does not flow.
fn dash(flow: &Flow, across: bool) -> char {
    match (flow.mood == Mood::Bad, flow.kind, across) {
        (true, _, true) => '╌',
        (true, _, false) => '╎',
        (false, FlowKind::Mirror, true) => '═',
        (false, FlowKind::Mirror, false) => '║',
        (false, _, true) => '─',
        (false, _, false) => '│',
    }
}

fn sign(mood: Mood) -> char {
    match mood {
        Mood::Good => '●',
        Mood::Idle => '○',
        Mood::Bad => '✗',
        Mood::Unknown => '·',
    }
}

/// Characters by row and column.
#[derive(Default)]
struct Canvas {
    rows: Vec<Vec<char>>,
}

impl Canvas {
    fn dot(&mut self, x: usize, y: usize, c: char) {
        if self.rows.len() <= y {
            self.rows.resize(y + 1, Vec::new());
        }
        let row = &mut self.rows[y];
        if row.len() <= x {
            row.resize(x + 1, ' ');
        }
        row[x] = c;
    }

    fn put(&mut self, x: usize, y: usize, text: &str) {
        text.chars().enumerate().for_each(|(i, c)| self.dot(x + i, y, c));
    }

    fn frame(&mut self, x: usize, y: usize, wide: usize, high: usize, name: &str, note: &str) {
        let note = if note.is_empty() { String::new() } else { format!(" {note} ─") };
        let head = format!("┌─ {name} ─{note}");
        let rest = wide.saturating_sub(width(&head) + 1);
        self.put(x, y, &format!("{head}{}┐", "─".repeat(rest)));
        for row in y + 1..y + high - 1 {
            self.dot(x, row, '│');
            self.dot(x + wide - 1, row, '│');
        }
        self.put(x, y + high - 1, &format!("└{}┘", "─".repeat(wide - 2)));
    }

    fn text(&self) -> String {
        self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }
}
