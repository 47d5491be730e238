//! The picture as SVG: one file, nothing loaded from elsewhere, no scripts, colours for light and dark.

use super::{Flow, FlowKind, HostBox, Mood, Picture, Row, SiteBox};
use cluster::name::{DatabaseName, HostName};
use std::collections::BTreeMap;
use std::fmt::Write;

const MARGIN: f64 = 24.0;
const SITE: f64 = 380.0;
const GUTTER: f64 = 210.0;
const PAD: f64 = 20.0;
const TOP: f64 = 92.0;
const SITE_HEAD: f64 = 42.0;
const HOST_HEAD: f64 = 36.0;
const ROW: f64 = 28.0;
const BETWEEN_HOSTS: f64 = 54.0;
const SHARE: f64 = 54.0;

const STYLE: &str = "
    svg { color-scheme: light dark; --ground: #ffffff; --site: #f6f8fa; --box: #ffffff; --edge: #8c959f; --ink: #1f2328;
      --soft: #59636e; --good: #1a7f37; --bad: #cf222e; --lost: #fff1f0; }
    @media (prefers-color-scheme: dark) { svg { --ground: #0d1117; --site: #161b22; --box: #0d1117; --edge: #57606a;
      --ink: #e6edf3; --soft: #9da7b1; --good: #3fb950; --bad: #ff7b72; --lost: #2d1517; } }
    text { fill: var(--ink); font: 14px system-ui, sans-serif; }
    .title { font-size: 20px; font-weight: 600; }
    .head { font-weight: 600; }
    .soft { fill: var(--soft); font-size: 12.5px; }
    .end { text-anchor: end; }
    .mid { text-anchor: middle; }
    .ground { fill: var(--ground); }
    .site { fill: var(--site); stroke: var(--edge); }
    .lost { fill: var(--lost); stroke: var(--bad); stroke-dasharray: 6 4; }
    .box { fill: var(--box); stroke: var(--edge); }
    .flow { fill: none; stroke: var(--soft); stroke-width: 1.6; marker-end: url(#head-soft); }
    .flow.good { stroke: var(--good); marker-end: url(#head-good); }
    .flow.bad { stroke: var(--bad); stroke-dasharray: 5 4; marker-end: url(#head-bad); }
    .flow.mirror { stroke-width: 2.6; }
    .dot { fill: none; stroke: var(--soft); stroke-width: 1.6; }
    .dot.good { fill: var(--good); stroke: var(--good); }
    .dot.bad { fill: var(--bad); stroke: var(--bad); }
    .fill-soft { fill: var(--soft); } .fill-good { fill: var(--good); } .fill-bad { fill: var(--bad); }
    .label { paint-order: stroke; stroke: var(--ground); stroke-width: 5px; }
    .inside { stroke: var(--site); }
";

/// Where the row of a database stands: the middle of its left and right edge.
#[derive(Clone, Copy)]
struct Place {
    site: usize,
    left: f64,
    right: f64,
    y: f64,
    host_top: f64,
    host_bottom: f64,
}

type Places<'a> = BTreeMap<(&'a HostName, &'a DatabaseName), Place>;

/// Draw the picture.
pub fn draw(picture: &Picture) -> String {
    let sites = picture.sites.len().max(1) as f64;
    let tallest = picture.sites.iter().map(site_height).fold(0.0, f64::max);
    let below = picture.shares.len() + picture.existing.len();
    let shares = if below == 0 { 0.0 } else { 40.0 };
    let wide = 2.0 * MARGIN + sites * SITE + (sites - 1.0) * GUTTER;
    let high = TOP + tallest + shares + below as f64 * (SHARE + 12.0) + MARGIN;
    let mut out = Svg::default();
    out.line(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" width=\"{wide}\" height=\"{high}\" role=\"img\">"
    ));
    out.line(format_args!("<title>{}: {}</title>", safe(&picture.title), safe(&picture.subtitle)));
    out.line(format_args!("<style>{STYLE}</style>"));
    out.line(format_args!("<defs>"));
    for tone in ["soft", "good", "bad"] {
        out.line(format_args!(
            "<marker id=\"head-{tone}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"9\" markerHeight=\"9\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"fill-{tone}\" d=\"M0 0 8 4 0 8z\"/></marker>"
        ));
    }
    out.line(format_args!("</defs>"));
    out.line(format_args!("<rect class=\"ground\" width=\"{wide}\" height=\"{high}\"/>"));
    out.text("title", MARGIN, 40.0, &picture.title);
    out.text("soft", MARGIN, 64.0, &picture.subtitle);
    let mut places = BTreeMap::new();
    for (index, site) in picture.sites.iter().enumerate() {
        let left = MARGIN + index as f64 * (SITE + GUTTER);
        draw_site(&mut out, site, index, (left, tallest), &mut places);
    }
    for (index, share) in picture.shares.iter().enumerate() {
        let top = TOP + tallest + shares + index as f64 * (SHARE + 12.0);
        let end = |host: &Option<HostName>| host.as_ref().and_then(|h| places.get(&(h, &share.database))).copied();
        draw_below(&mut out, "log share", &share.path, (wide, top), TOP + tallest, [end(&share.from), end(&share.to)]);
    }
    for (index, (database, dsn)) in picture.existing.iter().enumerate() {
        let top = TOP + tallest + shares + (picture.shares.len() + index) as f64 * (SHARE + 12.0);
        let says = format!("{database}, operated by somebody else");
        draw_below(&mut out, &says, dsn, (wide, top), TOP + tallest, [None, None]);
    }
    for flow in &picture.flows {
        let ends = places.get(&(&flow.from, &flow.database)).zip(places.get(&(&flow.to, &flow.database)));
        if let Some((from, to)) = ends {
            draw_flow(&mut out, flow, *from, *to);
        }
    }
    out.line(format_args!("</svg>"));
    out.0
}

fn host_height(host: &HostBox) -> f64 {
    HOST_HEAD + host.rows.len() as f64 * ROW + 8.0
}

fn site_height(site: &SiteBox) -> f64 {
    let hosts: f64 = site.hosts.iter().map(host_height).sum();
    SITE_HEAD + hosts + site.hosts.len().saturating_sub(1) as f64 * BETWEEN_HOSTS + PAD
}

fn draw_site<'a>(out: &mut Svg, site: &'a SiteBox, index: usize, (left, high): (f64, f64), places: &mut Places<'a>) {
    let class = if site.lost { "site lost" } else { "site" };
    out.rect(class, (left, TOP, SITE, high), 10.0);
    out.text("head", left + PAD, TOP + 27.0, &site.name);
    out.text("soft end", left + SITE - PAD, TOP + 27.0, &site.note);
    let (left, right) = (left + PAD, left + SITE - PAD);
    let mut top = TOP + SITE_HEAD;
    for host in &site.hosts {
        let bottom = top + host_height(host);
        out.rect("box", (left, top, right - left, bottom - top), 7.0);
        out.text("head", left + 14.0, top + 24.0, host.name.as_str());
        out.text("soft end", right - 14.0, top + 24.0, &host.note);
        for (number, row) in host.rows.iter().enumerate() {
            let y = top + HOST_HEAD + number as f64 * ROW + ROW / 2.0;
            draw_row(out, row, left, right, y);
            if let Some(database) = &row.database {
                let place = Place { site: index, left, right, y, host_top: top, host_bottom: bottom };
                places.insert((&host.name, database), place);
            }
        }
        top = bottom + BETWEEN_HOSTS;
    }
}

fn draw_row(out: &mut Svg, row: &Row, left: f64, right: f64, y: f64) {
    out.line(format_args!("<circle class=\"dot {}\" cx=\"{}\" cy=\"{y}\" r=\"4.5\"/>", tone(row.mood), left + 20.0));
    out.text("", left + 34.0, y + 5.0, &row.what);
    out.text("soft end", right - 14.0, y + 5.0, &row.state);
}

fn draw_flow(out: &mut Svg, flow: &Flow, from: Place, to: Place) {
    let mirror = if flow.kind == FlowKind::Mirror { " mirror" } else { "" };
    let class = format!("flow {}{mirror}", tone(flow.mood));
    if from.site != to.site {
        let (start, end) = if from.site < to.site { (from.right, to.left) } else { (from.left, to.right) };
        let (pull, gap) = if from.site < to.site { (90.0, -3.0) } else { (-90.0, 3.0) };
        out.line(format_args!(
            "<path class=\"{class}\" d=\"M{start} {} C{} {} {} {} {} {}\"/>",
            from.y,
            start + pull,
            from.y,
            end - pull,
            to.y,
            end + gap,
            to.y
        ));
        out.text("soft mid label", f64::midpoint(start, end), f64::midpoint(from.y, to.y) - 10.0, &flow.label);
        return;
    }
    let down = from.host_bottom < to.host_top;
    let (start, end) = if down { (from.host_bottom, to.host_top - 2.0) } else { (from.host_top, to.host_bottom + 2.0) };
    if (end - start).abs() <= BETWEEN_HOSTS {
        let x = from.left + 40.0;
        out.line(format_args!("<path class=\"{class}\" d=\"M{x} {start} V{end}\"/>"));
        out.text("soft label inside", x + 14.0, f64::midpoint(start, end) + 4.0, &flow.label);
    } else {
        // Other hosts stand in between: round them, inside the site.
        let x = from.right;
        out.line(format_args!(
            "<path class=\"{class}\" d=\"M{x} {} C{bend} {} {bend} {} {} {}\"/>",
            from.y,
            from.y,
            to.y,
            x + 2.0,
            to.y,
            bend = x + 30.0
        ));
        out.text("soft end label inside", x - 14.0, f64::midpoint(start, end) + 4.0, &flow.label);
    }
}

/// A box below the sites, fed from the first place and feeding the second.
fn draw_below(
    out: &mut Svg,
    says: &str,
    path: &str,
    (wide, top): (f64, f64),
    sites_end: f64,
    ends: [Option<Place>; 2],
) {
    let width = 300.0_f64.max(path.chars().count() as f64 * 8.0 + 40.0).min(wide - 2.0 * MARGIN);
    let left = (wide - width) / 2.0;
    out.rect("box", (left, top, width, SHARE), 7.0);
    out.text("soft mid", wide / 2.0, top + 22.0, says);
    out.text("mid", wide / 2.0, top + 42.0, path);
    let [from, to] = ends;
    let middle = top + SHARE / 2.0;
    let beside = |place: Place| f64::midpoint(place.left, place.right);
    let near = |x: f64| if x < wide / 2.0 { left } else { left + width };
    if let (Some(from), Some(to)) = (from, to) {
        let (a, b) = (beside(from), beside(to));
        let edge = if a < wide / 2.0 { -3.0 } else { 3.0 };
        out.line(format_args!(
            "<path class=\"flow\" d=\"M{a} {sites_end} Q{a} {middle} {} {middle}\"/>",
            near(a) + edge
        ));
        out.line(format_args!(
            "<path class=\"flow\" d=\"M{} {middle} Q{b} {middle} {b} {}\"/>",
            near(b),
            sites_end + 3.0
        ));
    }
}

fn tone(mood: Mood) -> &'static str {
    match mood {
        Mood::Good => "good",
        Mood::Bad => "bad",
        Mood::Idle | Mood::Unknown => "soft",
    }
}

/// Text as it may stand in XML.
fn safe(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[derive(Default)]
struct Svg(String);

impl Svg {
    fn line(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(what);
        self.0.push('\n');
    }

    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        if !text.is_empty() {
            let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
            self.line(format_args!("<text{class} x=\"{x}\" y=\"{y}\">{}</text>", safe(text)));
        }
    }

    fn rect(&mut self, class: &str, (x, y, wide, high): (f64, f64, f64, f64), round: f64) {
        self.line(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{high}\" rx=\"{round}\"/>"
        ));
    }
}
