//! What the tests of both formats share.

use super::Chain;
use super::text::{Fault, Text};

/// A file with this content.
pub(super) fn text(content: &str) -> Result<Text, Fault> {
    Text::begin(Box::new(std::io::Cursor::new(content.to_owned())))
}

/// Name and letters of each chain.
pub(super) fn letters(chains: &[Chain]) -> Vec<String> {
    let shown = |chain: &Chain| {
        assert_eq!(chain.residues.len(), chain.atoms.len());
        let residues = String::from_utf8_lossy(&chain.residues);
        format!("{} {residues}", chain.name)
    };
    chains.iter().map(shown).collect()
}
