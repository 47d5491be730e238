//! Closing the bucket to older epochs, and taking away what nobody needs.

use super::index::{CLOSED, Index, NEEDS, OPEN_FROM, Seal};
use super::store::{New, Object};
use super::{AT_ONCE, Bucket, Shipping};
use crate::postgres::share::{EPOCHS_KEPT, NEEDS_AGE, SEGMENTS_MAX, Trimmed, is_segment};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::UpdateVersion;
use rules::id::Epoch;
use std::time::Duration;

/// Objects that are deleted in one trim, at most: the rest goes with the next.
const DELETED_MAX: usize = 256;
/// Tries to raise the first open epoch while others change it too.
const TRIES: usize = 8;

impl Bucket {
    /// The first epoch that may ship, as the store says now, and what tells that from another answer.
    pub(super) async fn open_from(&self) -> Result<(Option<Epoch>, Option<UpdateVersion>), String> {
        let Some((text, version)) = self.store.get(OPEN_FROM).await? else { return Ok((None, None)) };
        let text = String::from_utf8_lossy(&text).into_owned();
        let epoch =
            text.trim().parse().map_err(|_| format!("{OPEN_FROM} in the share is no epoch: '{}'", text.trim()))?;
        Ok((Some(Epoch(epoch)), Some(version)))
    }

    pub(super) async fn seal(&self, epoch: Epoch) -> Result<Option<Seal>, String> {
        let name = format!("{CLOSED}{epoch}");
        let Some((text, _)) = self.store.get(&name).await? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|e| format!("{name} in the share is no seal: {e}"))
    }

    /// Close the bucket to epochs before `epoch`. May be repeated.
    ///
    /// First it is said, then it is listed what is there: whoever has put something there before that, and looks after that
    /// whether it was still open, is told the truth either way.
    ///
    /// # Errors
    /// What the store says. Nothing is half done that a repetition does not finish.
    pub async fn close(&self, epoch: Epoch) -> Result<(), String> {
        self.raise_open_from(epoch).await?;
        let index = self.look().await?;
        let open = index.epochs.keys().filter(|older| **older < epoch && !index.seals.contains_key(older));
        for older in open.copied().collect::<Vec<Epoch>>() {
            let files = index.epochs.get(&older).into_iter().flatten().map(|(below, _)| below.clone()).collect();
            let seal = serde_json::to_vec(&Seal { by: epoch.0, files }).map_err(|e| format!("write a seal: {e}"))?;
            // The first seal counts: it was there when somebody began to read what it names.
            let _: New = self.store.put_new(&format!("{CLOSED}{older}"), seal).await?;
        }
        self.look().await.map(|_| ())
    }

    /// It is raised, never lowered, whoever else raises it meanwhile.
    async fn raise_open_from(&self, epoch: Epoch) -> Result<(), String> {
        for _ in 0..TRIES {
            let text = epoch.to_string().into_bytes();
            let done = match self.open_from().await? {
                (Some(first), _) if first >= epoch => true,
                (_, Some(version)) => self.store.replace(OPEN_FROM, text, version).await?,
                (_, None) => self.store.put_new(OPEN_FROM, text).await? == New::Created,
            };
            if done {
                return Ok(());
            }
        }
        Err(format!("{OPEN_FROM} is being changed by others all the time"))
    }

    /// Take away segments that are too old and that nobody needs, the oldest beyond the bound on the share's size in any
    /// case, what was being written and is finished, and epochs long over.
    pub(super) async fn trim(&self, shipping: &Shipping) -> Result<(), String> {
        let index = self.look().await?;
        if index.open_from.is_some_and(|first| shipping.epoch < first) {
            // What is there belongs to whoever closed it.
            return Ok(());
        }
        let needed = self.needed_from(&index, shipping.older_than.max(NEEDS_AGE)).await?;
        let plan = plan(&index, shipping, needed, jiff::Timestamp::now().as_millisecond());
        let deleted: Vec<_> =
            plan.deleted.iter().take(DELETED_MAX).map(|name| self.store.delete(name).boxed()).collect();
        stream::iter(deleted).buffered(AT_ONCE * 2).try_collect::<Vec<()>>().await?;
        self.seen(|s| s.trimmed = plan.trimmed);
        Ok(())
    }

    /// The first place that somebody still needs, as far as anybody has said so lately.
    async fn needed_from(&self, index: &Index, lately: Duration) -> Result<Option<String>, String> {
        let now = jiff::Timestamp::now().as_millisecond();
        let mut first: Option<String> = None;
        let said = index.needs.iter().filter(|o| o.name.starts_with(NEEDS) && !is_older(o, lately, now));
        for said in said.cloned().collect::<Vec<Object>>() {
            let Some((text, _)) = self.store.get(&said.name).await? else { continue };
            let place = String::from_utf8_lossy(&text).trim().to_owned();
            first = Some(first.map_or(place.clone(), |first| first.min(place)));
        }
        Ok(first)
    }
}

fn is_older(object: &Object, than: Duration, now_ms: i64) -> bool {
    now_ms.saturating_sub(object.changed_ms) > than.as_millis() as i64
}

/// What a trim takes away.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    deleted: Vec<String>,
    trimmed: Trimmed,
}

fn plan(index: &Index, shipping: &Shipping, needed: Option<String>, now_ms: i64) -> Plan {
    let mut plan = Plan { deleted: Vec::new(), trimmed: Trimmed::default() };
    for (epoch, objects) in index.epochs.iter().filter(|(epoch, _)| **epoch <= shipping.epoch) {
        if shipping.epoch.0 - epoch.0 > EPOCHS_KEPT {
            plan.deleted.extend(objects.values().map(|o| o.name.clone()));
            plan.deleted.extend(index.seals.contains_key(epoch).then(|| format!("{CLOSED}{epoch}")));
            continue;
        }
        let of = |below: &String| below.strip_prefix("wal/").filter(|name| is_segment(name)).map(str::to_owned);
        let segments: Vec<(String, &Object)> = objects.iter().filter_map(|(b, o)| Some((of(b)?, o))).collect();
        let too_many = segments.len().saturating_sub(SEGMENTS_MAX);
        for (n, (name, object)) in segments.iter().enumerate() {
            let is_needed = *epoch == shipping.epoch && needed.as_ref().is_some_and(|from| name[8..] >= from[..]);
            if n < too_many || (is_older(object, shipping.older_than, now_ms) && !is_needed) {
                plan.deleted.push(object.name.clone());
                plan.trimmed.files += 1;
                if is_needed {
                    plan.trimmed.lost_for = Some(name.clone());
                }
            }
        }
        for (below, object) in objects {
            let partial = below.strip_prefix("stream/").and_then(|name| name.strip_suffix(".partial"));
            if *epoch == shipping.epoch && partial.is_some_and(|name| objects.contains_key(&format!("wal/{name}"))) {
                plan.deleted.push(object.name.clone());
            }
        }
    }
    plan.trimmed.needed_from = needed;
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const OLD: i64 = 0;
    const NOW: i64 = 10_000;

    fn name(n: usize) -> String {
        format!("00000001{:08X}{:08X}", n / 4096, n % 4096)
    }

    fn check(objects: &[(String, i64)], needed: Option<usize>, expect: &[String], lost: Option<usize>) {
        let object = |(name, changed_ms): &(String, i64)| Object {
            name: name.clone(),
            bytes: 1,
            changed_ms: *changed_ms,
            tag: None,
        };
        let index = Index::new(objects.iter().map(object).collect(), None, BTreeMap::new());
        let shipping = Shipping { epoch: Epoch(5), pg_wal: "/".into(), older_than: Duration::from_secs(5) };
        let plan = plan(&index, &shipping, needed.map(|n| name(n)[8..].to_owned()), NOW);
        assert_eq!(plan.deleted, expect);
        assert_eq!(plan.trimmed.lost_for, lost.map(name));
    }

    #[test]
    fn old_segments_go_unless_somebody_needs_them() {
        let of = |epoch: i64, n: usize| format!("{epoch}/wal/{}", name(n));
        check(&[(of(5, 1), OLD), (of(5, 2), NOW)], None, &[of(5, 1)], None);
        check(&[(of(5, 1), OLD), (of(5, 2), OLD)], Some(2), &[of(5, 1)], None);
        check(&[(of(1, 1), NOW), (of(2, 1), NOW)], None, &[of(1, 1)], None);
        check(&[(of(6, 1), OLD)], None, &[], None);
        let partial = |n: usize| format!("5/stream/{}.partial", name(n));
        check(&[(of(5, 1), NOW), (partial(1), NOW), (partial(2), NOW)], None, &[partial(1)], None);
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_in_any_case_and_it_is_said() {
        let all: Vec<(String, i64)> = (0..SEGMENTS_MAX + 2).map(|n| (format!("5/wal/{}", name(n)), NOW)).collect();
        let oldest = [all[0].0.clone(), all[1].0.clone()];
        check(&all, Some(1), &oldest, Some(1));
    }
}
