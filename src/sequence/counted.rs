//! Numbers of things in messages.

use std::fmt;

/// `1 sequence`, `2 sequences`; the plural of `noun` has an `s`.
pub fn counted(count: impl fmt::Display + PartialEq + From<u8> + Copy, noun: &str) -> String {
    let plural = if count == 1.into() { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let all = [0_u64, 1, 2].map(|count| counted(count, "row"));
        assert_eq!(all, ["0 rows", "1 row", "2 rows"]);
    }
}
