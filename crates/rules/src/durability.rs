//! What an acknowledgement in a category's rooms waits for, and what happens when that cannot be had.
//!
//! It is a setting of the category. Which disks hold a post, and so whether it may be acknowledged, is decided by
//! `cluster::durable`; `docs/durability.md` says the same for people.

use crate::receipt::Durable;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The principal's own disk, whatever its mirror does. A take-over inside the site may leave such posts behind.
    Disk,
    /// The principal's disk and its mirror's.
    #[default]
    Mirror,
    /// A disk at each of two sites; the mirror's besides, while the pair is synchronised.
    BothSites,
}

/// What happens when that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnavailable {
    /// The post waits, unacknowledged and shown to nobody, until it can be had.
    Wait,
    /// The post is acknowledged with what can be had, and the acknowledgement says so.
    #[default]
    AcknowledgeAsLess,
}

/// The two together: a category's setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What is waited for.
    pub durability: Durability,
    /// And when it cannot be had.
    pub when_unavailable: WhenUnavailable,
}

impl Durability {
    /// The level that an acknowledgement states when it has been had.
    pub fn level(self) -> Durable {
        match self {
            Durability::Disk => Durable::Disk,
            Durability::Mirror => Durable::Mirror,
            Durability::BothSites => Durable::Site,
        }
    }
}

impl Rule {
    /// Every rule there is, in the order of their numbers.
    pub const ALL: [Self; 5] = {
        use Durability::{BothSites, Disk, Mirror};
        use WhenUnavailable::{AcknowledgeAsLess, Wait};
        const fn rule(durability: Durability, when_unavailable: WhenUnavailable) -> Rule {
            Rule { durability, when_unavailable }
        }
        [
            rule(Mirror, AcknowledgeAsLess),
            rule(Mirror, Wait),
            rule(BothSites, AcknowledgeAsLess),
            rule(BothSites, Wait),
            rule(Disk, AcknowledgeAsLess),
        ]
    };

    /// What is taken for a rule that is not known.
    pub const STRICTEST: Self = Self { durability: Durability::BothSites, when_unavailable: WhenUnavailable::Wait };

    /// The rule of these two.
    ///
    /// # Errors
    /// When they contradict each other, in a sentence.
    pub fn of(durability: Durability, when_unavailable: WhenUnavailable) -> Result<Self, String> {
        if durability == Durability::Disk && when_unavailable == WhenUnavailable::Wait {
            return Err("the principal's own disk is always there, so no post waits for it: ask for disk alone, or for more than \
                        disk if posts are to wait"
                .to_owned());
        }
        Ok(Self { durability, when_unavailable })
    }

    /// This rule with what a change names. Who asks for the disk alone takes back that posts wait.
    ///
    /// # Errors
    /// When the two contradict each other, in a sentence.
    pub fn changed(
        self,
        durability: Option<Durability>,
        when_unavailable: Option<WhenUnavailable>,
    ) -> Result<Self, String> {
        let kept =
            if durability == Some(Durability::Disk) { WhenUnavailable::default() } else { self.when_unavailable };
        Self::of(durability.unwrap_or(self.durability), when_unavailable.unwrap_or(kept))
    }

    /// Whether commits do not wait for the mirror.
    pub fn is_disk(&self) -> bool {
        self.durability == Durability::Disk
    }

    /// Whether an acknowledgement waits beside the chat path, after the commit, for what standbys tell.
    pub fn asks_standbys(&self) -> bool {
        match self.durability {
            Durability::Disk => false,
            Durability::Mirror => self.waits(),
            Durability::BothSites => true,
        }
    }

    /// Whether it is what holds where nobody has set anything: a commit that has returned is acknowledged.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether posts wait for as long as it takes: then nobody is shown what has not been had.
    pub fn waits(&self) -> bool {
        self.when_unavailable == WhenUnavailable::Wait
    }

    /// The number that stands for it in the database.
    pub fn code(self) -> i16 {
        match (self.durability, self.when_unavailable) {
            (Durability::Mirror, WhenUnavailable::AcknowledgeAsLess) => 0,
            (Durability::Mirror, WhenUnavailable::Wait) => 1,
            (Durability::BothSites, WhenUnavailable::AcknowledgeAsLess) => 2,
            (Durability::BothSites, WhenUnavailable::Wait) => 3,
            (Durability::Disk, WhenUnavailable::AcknowledgeAsLess | WhenUnavailable::Wait) => 4,
        }
    }

    /// The rule of a number. One that a later version has written is taken for the strictest.
    pub fn of_code(code: i16) -> Self {
        Self::ALL.into_iter().find(|rule| rule.code() == code).unwrap_or(Self::STRICTEST)
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Disk => "disk",
            Durability::Mirror => "mirror",
            Durability::BothSites => "both_sites",
        })
    }
}

impl fmt::Display for WhenUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhenUnavailable::Wait => "wait",
            WhenUnavailable::AcknowledgeAsLess => "acknowledge_as_less",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.durability {
            Durability::Disk => write!(f, "{}", self.durability),
            Durability::Mirror | Durability::BothSites => {
                write!(f, "{}, else {}", self.durability, self.when_unavailable)
            }
        }
    }
}

impl FromStr for Durability {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Durability::Disk, Durability::Mirror, Durability::BothSites];
        known
            .into_iter()
            .find(|d| d.to_string() == text.replace('-', "_"))
            .ok_or_else(|| format!("'{text}' is no durability; there are: disk, mirror, both_sites"))
    }
}

impl FromStr for WhenUnavailable {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = [WhenUnavailable::Wait, WhenUnavailable::AcknowledgeAsLess];
        known
            .into_iter()
            .find(|w| w.to_string() == text.replace('-', "_"))
            .ok_or_else(|| format!("'{text}' is not what can be done; there are: wait, acknowledge_as_less"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_number_and_words_of_its_own() {
        for (code, rule) in (0..).zip(Rule::ALL) {
            assert_eq!((rule.code(), Rule::of_code(code)), (code, rule));
            assert_eq!(rule.durability.to_string().parse(), Ok(rule.durability));
            assert_eq!(rule.when_unavailable.to_string().parse(), Ok(rule.when_unavailable));
        }
        assert!(Rule::of_code(0).is_default());
        assert_eq!((Rule::of_code(99), Rule::of_code(3)), (Rule::STRICTEST, Rule::STRICTEST));
        assert_eq!("both-sites".parse(), Ok(Durability::BothSites));
        assert!("disks".parse::<Durability>().unwrap_err().contains("both_sites"));
    }

    #[test]
    fn nobody_waits_for_the_disk_that_is_there() {
        use Durability::{BothSites, Disk, Mirror};
        use WhenUnavailable::{AcknowledgeAsLess, Wait};
        let rule = |durability, when_unavailable| Rule { durability, when_unavailable };
        let check = |before: Rule, durability, when_unavailable, expect: Option<Rule>| {
            let got = before.changed(durability, when_unavailable);
            assert_eq!(got.clone().ok(), expect, "{before:?} {durability:?} {when_unavailable:?}: {got:?}");
        };
        check(rule(BothSites, Wait), Some(Disk), None, Some(rule(Disk, AcknowledgeAsLess)));
        check(rule(BothSites, Wait), Some(Disk), Some(Wait), None);
        check(rule(BothSites, Wait), Some(Mirror), None, Some(rule(Mirror, Wait)));
        check(rule(Disk, AcknowledgeAsLess), None, Some(Wait), None);
        check(rule(Disk, AcknowledgeAsLess), Some(Mirror), Some(Wait), Some(rule(Mirror, Wait)));
        check(rule(Disk, AcknowledgeAsLess), None, None, Some(rule(Disk, AcknowledgeAsLess)));
        assert!(Disk < Mirror && Mirror < BothSites && Disk.level() < Mirror.level());
    }

    #[test]
    fn only_what_a_commit_does_not_bring_is_waited_for_beside_the_chat_path() {
        let asks: Vec<bool> = Rule::ALL.iter().map(Rule::asks_standbys).collect();
        assert_eq!(asks, [false, true, true, true, false]);
    }
}
