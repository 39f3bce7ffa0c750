//! Many numbers as a few (summary statistics, the bins of a histogram) and numbers as text.

/// Statistics of the finite values of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SummaryStatistics {
    /// Number of finite values.
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) mean: f64,
    pub(crate) max: f64,
}

impl SummaryStatistics {
    /// `None` when no value is finite.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let count = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(SummaryStatistics {
            count,
            min,
            median: f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
            mean: sorted.iter().sum::<f64>() / count as f64,
            max,
        })
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances are equal differences.
    Linear,
    /// Equal distances are equal ratios.
    Log10,
}

/// The bars of a histogram, equally wide on its scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    /// The scale of `low` and `width`.
    pub scale: Scale,
    /// The beginning of the first bar on the axis.
    pub low: f64,
    /// The width of a bar.
    pub width: f64,
    /// Values in each bar.
    pub counts: Vec<usize>,
}

impl Bins {
    /// Counts the finite values, on a logarithmic scale when all are positive and the largest is
    /// more than 100 times the smallest.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let scale = if min > 0.0 && max > 100.0 * min {
            Scale::Log10
        } else {
            Scale::Linear
        };
        let placed: Vec<f64> = sorted.iter().map(|v| scale.place(*v)).collect();
        let (low, high) = (scale.place(min), scale.place(max));
        if high <= low {
            let counts = vec![sorted.len()];
            return Some(Bins {
                scale,
                low: low - 0.5,
                width: 1.0,
                counts,
            });
        }
        let bars = ((sorted.len() as f64).sqrt().ceil() as usize).clamp(5, 40);
        let width = (high - low) / bars as f64;
        let mut counts = vec![0; bars];
        for value in placed {
            counts[(((value - low) / width) as usize).min(bars - 1)] += 1;
        }
        Some(Bins {
            scale,
            low,
            width,
            counts,
        })
    }

    /// The end of the last bar on the axis.
    pub fn high(&self) -> f64 {
        self.low + self.width * self.counts.len() as f64
    }
}

impl Scale {
    /// A value's place on the axis.
    pub fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log10 => value.log10(),
        }
    }

    /// The label at a place of the axis.
    pub fn label(self, place: f64) -> String {
        match self {
            Scale::Linear => short(place),
            Scale::Log10 => short(10_f64.powf(place)),
        }
    }
}

/// Four significant digits; scientific notation for very large and very small numbers.
pub fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let power = value.abs().log10().floor() as i32;
    if !(-4..7).contains(&power) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.*}", (3 - power).max(0) as usize);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// The round distance (1, 2 or 5 times a power of ten) at which about `most` ticks stand on
/// `length`.
pub(crate) fn tick_distance(length: f64, most: f64) -> f64 {
    let rough = (length / most).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let fits = [1.0, 2.0, 5.0].into_iter().find(|m| m * power >= rough);
    fits.unwrap_or(10.0) * power
}

/// Round positions, counted from 1, of at most about `most` ticks along a protein.
pub(crate) fn tick_positions(length: usize, most: f64) -> impl Iterator<Item = usize> {
    let distance = tick_distance(length as f64, most).max(1.0) as usize;
    (distance..=length).step_by(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_leave_out_what_is_not_finite() {
        let summary = SummaryStatistics::of(&[3.0, f64::NAN, 1.0, 2.0, 10.0]).unwrap();
        let SummaryStatistics {
            count,
            min,
            median,
            mean,
            max,
        } = summary;
        assert_eq!((count, min, median, mean, max), (4, 1.0, 2.5, 4.0, 10.0));
        assert_eq!(SummaryStatistics::of(&[f64::NAN]), None);
    }

    #[test]
    fn every_value_is_in_a_bar() {
        for values in [
            vec![1.0],
            vec![2.0, 2.0],
            (0..1000).map(f64::from).collect(),
            vec![-1.0, 0.0, 1e9],
        ] {
            let bins = Bins::of(&values).unwrap();
            assert_eq!(bins.counts.iter().sum::<usize>(), values.len());
            assert!(bins.low <= values[0] && bins.high() >= values[values.len() - 1] - 1e-6);
        }
        assert_eq!(Bins::of(&[]), None);
    }

    #[test]
    fn wide_ranges_are_logarithmic() {
        assert_eq!(Bins::of(&[1.0, 99.0]).unwrap().scale, Scale::Linear);
        let bins = Bins::of(&[1.0, 10.0, 1e5]).unwrap();
        assert_eq!(
            (bins.scale, bins.counts),
            (Scale::Log10, vec![1, 1, 0, 0, 1])
        );
    }

    #[test]
    fn numbers_are_short() {
        let table = [
            (0.0, "0"),
            (1.0, "1"),
            (12.345_67, "12.35"),
            (123_456.0, "123456"),
            (-0.001_234_5, "-0.001234"),
            (7.36e13, "7.36e13"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in table {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn ticks_stand_at_round_numbers() {
        for (length, expected) in [(100.0, 20.0), (7.0, 1.0), (0.3, 0.05), (1234.0, 200.0)] {
            let distance = tick_distance(length, 7.0);
            assert!((distance - expected).abs() < 1e-12, "{length}");
        }
        let positions: Vec<_> = tick_positions(40, 8.0).collect();
        assert_eq!(positions, [5, 10, 15, 20, 25, 30, 35, 40]);
        assert_eq!(tick_positions(0, 8.0).count(), 0);
    }
}
