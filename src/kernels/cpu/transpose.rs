//! Rows written side by side: the transpose that panels of weights and panels of queries need.

use super::simd::StoredFloat;

/// Writes `height` rows side by side: value k of row i goes to `strip[k][i]`. Rows are taken four
/// by four, which the compiler turns into shuffles.
pub(super) fn side_by_side<'a, const WIDTH: usize, T: StoredFloat + 'a>(
    row: impl Fn(usize) -> &'a [T],
    height: usize,
    strip: &mut [f32],
) {
    let whole = height - height % 4;
    for first in (0..whole).step_by(4) {
        let rows: [&[T]; 4] = std::array::from_fn(|i| row(first + i));
        let quads = rows.map(|row| row.as_chunks::<4>().0);
        for (k, values) in strip.chunks_exact_mut(4 * WIDTH).enumerate() {
            let square = [quads[0][k], quads[1][k], quads[2][k], quads[3][k]];
            for step in 0..4 {
                values[step * WIDTH + first..][..4]
                    .copy_from_slice(&square.map(|values| values[step].value()));
            }
        }
        let depth = rows[0].len();
        for k in depth - depth % 4..depth {
            for (i, row) in rows.iter().enumerate() {
                strip[k * WIDTH + first + i] = row[k].value();
            }
        }
    }
    for i in whole..height {
        for (values, value) in strip.chunks_exact_mut(WIDTH).zip(row(i)) {
            values[i] = value.value();
        }
    }
}
