//! Spearman's rank correlation, the measure of ProteinGym: Pearson's correlation of ranks, where
//! equal values share the mean of their ranks.

/// ρ of pairs; `None` for fewer than two pairs, or where one side is constant or contains NaN.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 2 || pairs.iter().any(|(x, y)| x.is_nan() || y.is_nan()) {
        return None;
    }
    let x = ranks(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let y = ranks(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        let terms = a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean));
        terms.sum()
    };
    let spread = product(&x, &x) * product(&y, &y);
    (spread > 0.0).then(|| product(&x, &y) / spread.sqrt())
}

/// Ranks from 0; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let shared = first as f64 + (group.len() as f64 - 1.0) / 2.0;
        for &index in group {
            ranks[index] = shared;
        }
        first += group.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(
            ranks(&[3.0, 1.0, 3.0, 2.0, -0.0, 0.0]),
            [4.5, 2.0, 4.5, 3.0, 0.5, 0.5]
        );
    }

    #[test]
    fn as_scipy_has_it() {
        let rho = |x: &[f64], y: &[f64]| {
            spearman(&x.iter().copied().zip(y.iter().copied()).collect::<Vec<_>>())
        };
        assert_eq!(rho(&[1.0, 2.0, 9.0], &[-1.0, 0.0, 1e9]), Some(1.0));
        assert_eq!(rho(&[1.0, 2.0], &[2.0, 1.0]), Some(-1.0));
        // scipy.stats.spearmanr([1, 2, 2, 4, 5, 0], [2, 1, 3, 3, 9, 3]).statistic
        let found = rho(
            &[1.0, 2.0, 2.0, 4.0, 5.0, 0.0],
            &[2.0, 1.0, 3.0, 3.0, 9.0, 3.0],
        )
        .unwrap();
        assert!((found - SCIPY).abs() < 1e-12, "{found}");
        assert_eq!(rho(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(rho(&[1.0], &[1.0]), None);
        assert_eq!(rho(&[f64::NAN, 1.0], &[1.0, 2.0]), None);
    }

    const SCIPY: f64 = 0.492_832_882_906_957_9;
}
