//! Which kernels give the same bytes for the same input, by the number types of a run.

/// Instruction sets that fuse multiplication and addition: the same sums in the same order, hence
/// the same f32 numbers. The portable kernels round twice.
const FUSED: [&str; 4] = ["avx2", "avx512", "avx512bf16", "amx"];

/// Whether kernels `first` and `second` give the same bytes. Either may name several, separated by
/// commas.
///
/// With f32 products every instruction set that fuses gives the same numbers. With 8-bit weights
/// the sums are exact on every instruction set, and what is not a product of weights is f32.
/// Products of bf16 round differently on each instruction set; GPUs of different generations sum in
/// different orders.
pub fn give_same_bytes(
    dtype: Option<&str>,
    weights: Option<&str>,
    first: &str,
    second: &str,
) -> bool {
    let f32_or_int8 = dtype == Some("f32") && matches!(weights, None | Some("int8"));
    let class = |name: &str| -> String {
        if f32_or_int8 && FUSED.contains(&name) {
            "fused".to_owned()
        } else {
            name.to_owned()
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
