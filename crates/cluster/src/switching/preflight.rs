//! What speaks against a switch, seen before anything is done, and what a forced one would lose.

use super::{Pair, pairs, part, streams, synchronised, wanted};
use crate::name::HostName;
use crate::report::InstanceState;
use crate::runbook::{Unmet, View};

/// What the other site says. One that does not answer may have failed over meanwhile: then this site would begin a second
/// history, and when the two meet again one of them is taken back.
fn alone(view: &View<'_>) -> Result<(), Unmet> {
    let here = &view.record.home;
    let Some(other) = view.topology.other_site(here) else { return Ok(()) };
    // A site that this one has declared lost has an older epoch.
    if view.record.lost_sites.contains_key(&other.name) {
        return Ok(());
    }
    let mut there = view.topology.hosts.iter().filter(|host| host.site == other.name).peekable();
    if there.peek().is_none() || there.any(|host| view.reports.contains_key(&host.name)) {
        return Ok(());
    }
    Err(Unmet {
        why: format!("no host of {} answers, and the pool may have failed over to it meanwhile", other.name),
        hint: format!(
            "ask at {}, or wait for the line; with --force it is done all the same, and if the pool has failed over, what \
             one of the two sites has written since is kept aside when they meet",
            other.name
        ),
        can_be_forced: true,
    })
}

/// A mirror whose agent has not heard the other site since it started is not promoted, and then nobody would write.
fn without_leave(view: &View<'_>, to: &HostName) -> Result<(), Unmet> {
    let Some(other) = view.reports.get(to).and_then(|r| r.asks.as_ref()) else { return Ok(()) };
    Err(Unmet {
        why: format!(
            "{to} has not heard {other} since its agent started, and the pool may have failed over to it meanwhile"
        ),
        hint: format!(
            "wait for the line; or, if you know that {other} does not serve: standfast pool start-alone --site {}",
            view.record.home
        ),
        can_be_forced: false,
    })
}

/// What keeps a pair from a hand-over right now.
pub(super) fn fit_for_hand_over(view: &View<'_>, pair: &Pair) -> Result<(), Unmet> {
    let Pair { database, from, to } = pair;
    alone(view)?;
    without_leave(view, to)?;
    let unmet = |why: String, hint: String| Err(Unmet { why, hint, can_be_forced: false });
    let state = "look at standfast mirror state";
    let mirror = part(view, database).and_then(|d| d.mirror.as_ref()).map(|m| &m.host);
    if mirror != Some(to) {
        return unmet(
            format!("{to} is not the mirror of {database} at the moment"),
            "standfast mirror install makes it the mirror".into(),
        );
    }
    match view.instance(from, database).map(|i| i.state) {
        Some(InstanceState::Online) => {}
        Some(_) => {
            let hint = format!("{state}; if {from} cannot come online, type it again with --force");
            return unmet(format!("{database} on {from}, the principal, is not online"), hint);
        }
        None => {
            let hint = format!("start the agent on {from}; if that host is gone, type it again with --force");
            return unmet(format!("{from}, the principal, does not answer ({})", view.silence(from)), hint);
        }
    }
    match view.instance(to, database) {
        None => unmet(
            format!("{to}, the mirror, does not answer ({})", view.silence(to)),
            format!("start the agent on {to}, and wait until the pair is synchronised"),
        ),
        Some(instance) if !streams(instance) => {
            unmet(format!("{database} on {to}, the mirror, does not receive the principal's log now"), state.into())
        }
        Some(_) if !synchronised(view, pair) => unmet(
            format!("{to} is not synchronised yet"),
            "wait until standfast mirror state says SYNCHRONIZED, and type it again".into(),
        ),
        Some(_) => Ok(()),
    }
}

/// What speaks against either kind of switch, whatever the state of the pair.
fn unfit(view: &View<'_>) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    for (database, d) in &view.record.databases {
        if d.principal.is_none() {
            unmet.push(Unmet {
                why: format!("{database} has no principal at the moment"),
                hint: "look at standfast pool status".into(),
                can_be_forced: false,
            });
        } else if wanted(view, database, d).is_none() {
            unmet.push(Unmet {
                why: format!("{database} has no mirror to change places with"),
                hint: "primary and mirror have to be in the topology, and standfast mirror install sets the pair up"
                    .into(),
                can_be_forced: false,
            });
        }
    }
    if view.record.databases.is_empty() {
        unmet.push(Unmet {
            why: "the pool has no database yet".into(),
            hint: "begin with standfast step initialise initialise-primary".into(),
            can_be_forced: false,
        });
    }
    unmet
}

pub(super) fn preflight_switch(view: &View<'_>) -> Vec<Unmet> {
    let mut unmet = unfit(view);
    unmet.extend(pairs(view).iter().filter_map(|pair| fit_for_hand_over(view, pair).err()));
    unmet
}

pub(super) fn preflight_force(view: &View<'_>) -> Vec<Unmet> {
    if let Some(take_over) = &view.facts.automatic {
        let mut unmet = crate::witness::unmet(view, take_over);
        unmet.extend(alone(view).err());
        unmet.extend(pairs(view).iter().filter_map(|pair| without_leave(view, &pair.to).err()));
        return unmet;
    }
    let mut unmet = unfit(view);
    unmet.extend(alone(view).err());
    for pair in pairs(view) {
        let Pair { database, from, to } = &pair;
        unmet.extend(without_leave(view, to).err());
        let mirror = part(view, database).and_then(|d| d.mirror.as_ref()).map(|m| &m.host);
        if mirror != Some(to) {
            unmet.push(Unmet {
                why: format!("{to} is not the mirror of {database} in the record"),
                hint: "standfast failover moves the pool to the other site".into(),
                can_be_forced: false,
            });
            continue;
        }
        if view.instance(to, database).is_none_or(|i| i.state != InstanceState::Standby) {
            let seen = view.instance(to, database).map_or(view.silence(to), |_| "its database is not running");
            unmet.push(Unmet {
                why: format!("{to}, the mirror, cannot take over ({seen})"),
                hint: "start its agent; if both are gone, standfast failover moves the pool to the other site".into(),
                can_be_forced: false,
            });
        }
        match view.instance(from, database).map(|i| i.state) {
            None => {}
            Some(InstanceState::Online) => unmet.push(Unmet {
                why: format!("{database} on {from} is online and answers"),
                hint: "without --force the two change places with no loss; to stop it the hard way, add --force".into(),
                can_be_forced: true,
            }),
            // It may be starting at this moment.
            Some(_) => unmet.push(Unmet {
                why: format!(
                    "{database} on {from} is not online, and its agent, which answers, holds it to be principal"
                ),
                hint: "look at standfast pool status; if it cannot come online, add --force".into(),
                can_be_forced: true,
            }),
        }
        if !synchronised(view, &pair) {
            unmet.push(Unmet { why: exposed(view, &pair), hint: less_loss(view, &pair), can_be_forced: true });
        }
    }
    unmet
}

fn exposed(view: &View<'_>, pair: &Pair) -> String {
    let Pair { database, from, to } = pair;
    let written = |host: &HostName| view.instance(host, database).and_then(|i| i.written);
    let known = match (written(from), written(to)) {
        (Some(there), Some(here)) => format!("; {to} lacks {} bytes of its log", there.bytes_after(here)),
        _ => String::new(),
    };
    format!(
        "the record says that {to} is not synchronised: what {from} has acknowledged since it lost its mirror would be \
         lost{known}"
    )
}

/// What a person can do about an unsynchronised mirror: the backup may hold more.
fn less_loss(view: &View<'_>, pair: &Pair) -> String {
    let written = |host: &HostName| view.instance(host, &pair.database).and_then(|i| i.written);
    let backup = part(view, &pair.database).and_then(|d| d.backup.as_ref());
    let more = backup.and_then(|host| Some((host, written(host)?.bytes_after(written(&pair.to)?))));
    match more.filter(|(_, bytes)| *bytes > 0) {
        Some((host, bytes)) => format!(
            "the backup on {host} holds {bytes} bytes more than {}: standfast failover loses less; to go on here all the \
             same, add --force",
            pair.to
        ),
        None => format!("bring {} back; to go on without what it holds, add --force", pair.from),
    }
}

/// What a forced switch would lose now, a sentence for each pair.
pub fn loss(view: &View<'_>) -> Vec<String> {
    let say = |pair: Pair| {
        let sees_disk = |host: &HostName| view.instance(host, &pair.database).is_some_and(|i| i.disk_categories > 0);
        if synchronised(view, &pair) && (sees_disk(&pair.from) || sees_disk(&pair.to)) {
            format!(
                "{}: nothing that was acknowledged as more than on one disk: {} is synchronised; what rooms whose category asks for the \
                 disk alone have beyond that comes home when {} is back",
                pair.database, pair.to, pair.from
            )
        } else if synchronised(view, &pair) {
            format!("{}: nothing that was acknowledged: {} is synchronised", pair.database, pair.to)
        } else {
            format!("{}: {}", pair.database, exposed(view, &pair))
        }
    };
    pairs(view).into_iter().map(say).collect()
}
