//! Which kernels give the same bytes for the same input, by the number types of a run.

/// Instruction sets that fuse multiplication and addition: the same sums in the same order, hence
/// the same f32 numbers. The portable kernels round twice.
const FUSED: [&str; 4] = ["avx2", "avx512", "avx512bf16", "amx"];

/// Instruction sets that widen bf16 weights and multiply in f32. The others multiply bf16, each in another order.
const WIDENING: [&str; 2] = ["avx2", "avx512"];

/// Whether kernels `first` and `second` give the same bytes. Either may name several, separated by commas.
///
/// With f32 products, also where weights are 8-bit integers, every instruction set that fuses gives the same numbers: sums of
/// integers are exact, and everything else is f32. bf16 weights give the same numbers where they are widened. GPUs of different
/// generations sum in different orders.
pub fn give_same_bytes(
    dtype: Option<&str>,
    weights: Option<&str>,
    first: &str,
    second: &str,
) -> bool {
    let alike: &[&str] = match (dtype, weights) {
        (Some("f32"), None | Some("int8")) => &FUSED,
        (Some("bf16"), None) => &WIDENING,
        _ => &[],
    };
    let class = |name| {
        if alike.contains(&name) {
            alike[0]
        } else {
            name
        }
    };
    let mut classes = first.split(", ").chain(second.split(", ")).map(class);
    let one = classes.next();
    classes.all(|class| Some(class) == one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_number_type() {
        let table = [
            (Some("f32"), None, "avx512", "amx", true),
            (Some("f32"), None, "avx2", "avx512bf16", true),
            (Some("f32"), None, "avx2, amx", "avx512", true),
            (Some("f32"), None, "portable", "avx2", false),
            (Some("f32"), None, "portable", "portable", true),
            (Some("f32"), None, "cuda-sm90", "avx2", false),
            (Some("f32"), None, "cuda-sm90", "cuda-sm80", false),
            (Some("f32"), Some("int8"), "avx2", "amx", true),
            (Some("bf16"), None, "avx2", "avx512", true),
            (Some("bf16"), None, "avx512", "avx512bf16", false),
            (Some("bf16"), None, "avx512bf16", "amx", false),
            (Some("bf16"), None, "amx", "amx", true),
            (Some("bf16"), Some("int8"), "avx512", "amx", false),
            (None, None, "avx2", "amx", false),
        ];
        for (dtype, weights, first, second, same) in table {
            assert_eq!(
                give_same_bytes(dtype, weights, first, second),
                same,
                "{dtype:?} {weights:?} {first} {second}"
            );
            assert_eq!(give_same_bytes(dtype, weights, second, first), same);
        }
    }
}
