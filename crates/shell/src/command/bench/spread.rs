//! A figure over several rounds: the middle one, and how far the others lie from it.

use serde::Serialize;

/// Median, lowest and highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

impl Spread {
    /// Of some values; zeros when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(lowest), Some(highest)) = (values.first().copied(), values.last().copied()) else {
            return Self { median: 0.0, lowest: 0.0, highest: 0.0 };
        };
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Self { median, lowest, highest }
    }

    /// In another unit.
    pub fn times(self, factor: f64) -> Self {
        Self { median: self.median * factor, lowest: self.lowest * factor, highest: self.highest * factor }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.highest >= 100.0 { 0 } else { 2 };
        write!(f, "{:>12.digits$}  ({:.digits$} … {:.digits$})", self.median, self.lowest, self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_the_middle() {
        let check = |values: &[f64], median: f64| {
            let found = Spread::of(values.iter().copied()).median;
            assert!((found - median).abs() < 1e-9, "{values:?}: {found}");
        };
        check(&[], 0.0);
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 5.0], 5.0);
        check(&[4.0, 1.0, 2.0, 9.0], 3.0);
    }
}
