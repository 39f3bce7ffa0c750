//! Measures of predicted numbers, each pair as often as it counts.

/// What was predicted and what is true.
pub type Pair = (f64, f64);

/// The mean of squared differences.
pub fn mse(pairs: &[Pair], times: &[u32]) -> Option<f64> {
    let squares = pairs
        .iter()
        .zip(times)
        .map(|((p, t), n)| f64::from(*n) * (p - t).powi(2));
    let all = total(times);
    (all > 0.0).then(|| squares.sum::<f64>() / all)
}

/// Pearson's correlation; none where one side is constant.
pub fn pearson(pairs: &[Pair], times: &[u32]) -> Option<f64> {
    let all = total(times);
    let mean = |side: fn(&Pair) -> f64| {
        let terms = pairs
            .iter()
            .zip(times)
            .map(|(pair, n)| f64::from(*n) * side(pair));
        terms.sum::<f64>() / all
    };
    let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for ((p, t), n) in pairs.iter().zip(times) {
        let (p, t, n) = (p - x, t - y, f64::from(*n));
        xx += n * p * p;
        yy += n * t * t;
        xy += n * p * t;
    }
    (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

/// Ranks made ready for [`Ranked::spearman`], which then needs no sorting.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// Places of the pairs by rising value, equal ones together, of either side.
    order: [Vec<Vec<usize>>; 2],
}

impl Ranked {
    /// Of these pairs.
    pub fn new(pairs: &[Pair]) -> Self {
        let order = |side: fn(&Pair) -> f64| {
            let mut places: Vec<usize> = (0..pairs.len()).collect();
            places.sort_by(|a, b| side(&pairs[*a]).total_cmp(&side(&pairs[*b])));
            let groups = places.chunk_by(|a, b| side(&pairs[*a]) == side(&pairs[*b]));
            groups.map(<[usize]>::to_vec).collect()
        };
        Self {
            order: [order(|pair| pair.0), order(|pair| pair.1)],
        }
    }

    /// Spearman's correlation: Pearson's of ranks, equal values sharing the mean of theirs; none where one side is constant.
    pub fn spearman(&self, times: &[u32]) -> Option<f64> {
        let ranks = |groups: &[Vec<usize>]| {
            let mut ranks = vec![0.0; times.len()];
            let mut below = 0.0;
            for group in groups {
                let here: f64 = group.iter().map(|place| f64::from(times[*place])).sum();
                group
                    .iter()
                    .for_each(|place| ranks[*place] = below + (here - 1.0) / 2.0);
                below += here;
            }
            ranks
        };
        let [x, y] = [&self.order[0], &self.order[1]].map(|groups| ranks(groups));
        let pairs: Vec<Pair> = x.into_iter().zip(y).collect();
        pearson(&pairs, times)
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
    fn counting_twice_is_being_there_twice() {
        let pairs = [(1.0, 2.0), (3.0, 2.5), (2.0, 2.0), (5.0, -1.0)];
        let times = [2, 1, 0, 3];
        let doubled: Vec<Pair> = pairs
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
        assert!(same(ranked, spearman(&doubled)));
    }

    #[test]
    fn a_constant_has_no_correlation() {
        let pairs = [(1.0, 2.0), (1.0, 3.0)];
        assert_eq!(pearson(&pairs, &[1, 1]), None);
        assert_eq!(Ranked::new(&pairs).spearman(&[1, 1]), None);
        assert_eq!(mse(&[], &[]), None);
    }
}
