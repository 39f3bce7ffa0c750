//! The names of the public types that a source file defines.

use proc_macro2::{LexError, TokenStream, TokenTree};

use super::paths::{end_of_item, is_cfg_test};

/// The keywords before the name of a type.
const KEYWORDS: [&str; 5] = ["struct", "enum", "trait", "type", "union"];

/// A public type and its place in the sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeName {
    pub name: String,
    /// The file, below `src`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// All types of a source that are `pub` or `pub(…)`, but for those in `#[cfg(test)]` items.
pub fn public_types(file: &str, source: &str) -> Result<Vec<TypeName>, LexError> {
    let mut found = Vec::new();
    walk(file, source.parse()?, &mut found);
    Ok(found)
}

fn walk(file: &str, stream: TokenStream, found: &mut Vec<TypeName>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(p) if p.as_char() == '#' && is_cfg_test(tokens.get(at + 1)) => {
                at = end_of_item(&tokens, at + 2);
                continue;
            }
            TokenTree::Ident(word) if *word == "pub" => {
                let scope = matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
                let rest = &tokens[(at + 1 + usize::from(scope)).min(tokens.len())..];
                if let [TokenTree::Ident(keyword), TokenTree::Ident(name), ..] = rest
                    && KEYWORDS.iter().any(|known| *keyword == known)
                {
                    found.push(TypeName {
                        name: name.to_string(),
                        file: file.to_owned(),
                        line: name.span().start().line,
                    });
                }
            }
            TokenTree::Group(group) => walk(file, group.stream(), found),
            _ => {}
        }
        at += 1;
    }
}

#[test]
fn a_planted_type_is_found() {
    let names = |source: &str| -> Vec<String> {
        let found = public_types("a.rs", source).expect("plain tokens");
        found.into_iter().map(|found| found.name).collect()
    };
    assert_eq!(names("pub struct A; enum B {}"), ["A"]);
    assert_eq!(
        names("pub(crate) enum A {} pub(in crate::b) trait C {}"),
        ["A", "C"]
    );
    assert_eq!(names("mod inner { pub type A = u8; }"), ["A"]);
    assert_eq!(
        names("#[cfg(test)] mod tests { pub struct A; } pub fn f() {}"),
        [""; 0]
    );
}
