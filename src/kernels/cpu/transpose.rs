//! Transposing a matrix, block by block.

use rayon::prelude::*;

/// Side of a block: sixteen f32 are a cache line.
const BLOCK: usize = 16;

/// `(rows, columns)` to `(columns, rows)`, both row-major.
///
/// # Panics
/// If `values` is no whole number of rows.
pub fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    if values.is_empty() {
        return Vec::new();
    }
    let rows = values.len() / columns;
    assert_eq!(values.len(), rows * columns, "whole rows");
    let mut out = vec![0.0; values.len()];
    out.par_chunks_mut(BLOCK * rows)
        .enumerate()
        .for_each(|(block, out)| {
            let first = block * BLOCK;
            let width = BLOCK.min(columns - first);
            for row in 0..rows {
                let source = &values[row * columns + first..][..width];
                for (i, value) in source.iter().enumerate() {
                    out[i * rows + row] = *value;
                }
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for (rows, columns) in [(1, 1), (3, 17), (33, 16), (100, 47)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let turned = transpose(&values, columns);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(turned[column * rows + row], values[row * columns + column]);
                }
            }
        }
    }
}
