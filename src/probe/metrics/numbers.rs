//! Measures of predicted numbers; `times` says how often each pair counts.

/// A predicted number and the measured one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValuePair {
    /// The prediction.
    pub predicted: f64,
    /// The measurement.
    pub measured: f64,
}

/// The mean of squared differences.
pub fn mse(pairs: &[ValuePair], times: &[u32]) -> Option<f64> {
    let squares = pairs
        .iter()
        .zip(times)
        .map(|(pair, n)| f64::from(*n) * (pair.predicted - pair.measured).powi(2));
    let all = total(times);
    (all > 0.0).then(|| squares.sum::<f64>() / all)
}

/// Pearson's correlation; none where one side is constant.
pub fn pearson(pairs: &[ValuePair], times: &[u32]) -> Option<f64> {
    let all = total(times);
    let mean = |side: fn(&ValuePair) -> f64| {
        let terms = pairs
            .iter()
            .zip(times)
            .map(|(pair, n)| f64::from(*n) * side(pair));
        terms.sum::<f64>() / all
    };
    let (x, y) = (mean(|pair| pair.predicted), mean(|pair| pair.measured));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (pair, n) in pairs.iter().zip(times) {
        let (p, t, n) = (pair.predicted - x, pair.measured - y, f64::from(*n));
        xx += n * p * p;
        yy += n * t * t;
        xy += n * p * t;
    }
    (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

/// Pairs sorted once, so that [`Ranked::spearman`] needs no sorting.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// Of either side: numbers of the pairs by rising value, equal values grouped.
    order: [Vec<Vec<usize>>; 2],
}

impl Ranked {
    /// Sorts the pairs.
    pub fn new(pairs: &[ValuePair]) -> Self {
        let order = |side: fn(&ValuePair) -> f64| {
            let mut places: Vec<usize> = (0..pairs.len()).collect();
            places.sort_by(|a, b| side(&pairs[*a]).total_cmp(&side(&pairs[*b])));
            let groups = places.chunk_by(|a, b| side(&pairs[*a]) == side(&pairs[*b]));
            groups.map(<[usize]>::to_vec).collect()
        };
        Self {
            order: [order(|pair| pair.predicted), order(|pair| pair.measured)],
        }
    }

    /// Spearman's correlation: Pearson's of ranks, equal values sharing the mean of theirs; none
    /// where one side is constant.
    pub fn spearman(&self, times: &[u32]) -> Option<f64> {
        let ranks = |groups: &[Vec<usize>]| {
            let mut ranks = vec![0.0; times.len()];
            let mut below = 0.0;
            for group in groups {
                let here: f64 = group.iter().map(|place| f64::from(times[*place])).sum();
                for place in group {
                    ranks[*place] = below + (here - 1.0) / 2.0;
                }
                below += here;
            }
            ranks
        };
        let [x, y] = [&self.order[0], &self.order[1]].map(|groups| ranks(groups));
        let pairs: Vec<ValuePair> = x.into_iter().zip(y).map(value_pair).collect();
        pearson(&pairs, times)
    }
}

fn value_pair((predicted, measured): (f64, f64)) -> ValuePair {
    ValuePair {
        predicted,
        measured,
    }
}

fn total(times: &[u32]) -> f64 {
    times.iter().map(|n| f64::from(*n)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::score::spearman;

    #[test]
    fn a_pair_that_counts_twice_equals_two_pairs() {
        let pairs = [(1.0, 2.0), (3.0, 2.5), (2.0, 2.0), (5.0, -1.0)].map(value_pair);
        let times = [2, 1, 0, 3];
        let doubled: Vec<ValuePair> = pairs
            .iter()
            .zip(times)
            .flat_map(|(pair, n)| std::iter::repeat_n(*pair, n as usize))
            .collect();
        let ones = vec![1; doubled.len()];
        let same = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-12;
        assert!(same(mse(&pairs, &times), mse(&doubled, &ones)));
        assert!(same(pearson(&pairs, &times), pearson(&doubled, &ones)));
        let ranked = Ranked::new(&pairs).spearman(&times);
        assert!(same(ranked, Ranked::new(&doubled).spearman(&ones)));
        let tuples: Vec<_> = doubled
            .iter()
            .map(|pair| (pair.predicted, pair.measured))
            .collect();
        assert!(same(ranked, spearman(&tuples)));
    }

    #[test]
    fn a_constant_has_no_correlation() {
        let pairs = [(1.0, 2.0), (1.0, 3.0)].map(value_pair);
        assert_eq!(pearson(&pairs, &[1, 1]), None);
        assert_eq!(Ranked::new(&pairs).spearman(&[1, 1]), None);
        assert_eq!(mse(&[], &[]), None);
    }
}
