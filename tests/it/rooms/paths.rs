//! Every path in a source file, found among its tokens: `use` trees are unfolded, `super` and
//! aliases are resolved, arguments of macros are included.

use std::collections::HashMap;

use proc_macro2::{Delimiter, Group, LexError, Spacing, TokenStream, TokenTree};

/// One path in a source.
pub struct Found {
    /// The segments, resolved by the `use` declarations of the file; paths in this crate begin with
    /// `crate`.
    pub path: Vec<String>,
    /// Line, from 1.
    pub line: usize,
    /// Whether `!` follows: a macro.
    pub is_macro: bool,
}

/// All paths of a source in the module `module`, but for those in `#[cfg(test)]` items.
pub fn find(module: &[String], source: &str) -> Result<Vec<Found>, LexError> {
    let mut walk = Walk {
        module: module.to_vec(),
        aliases: HashMap::new(),
        found: Vec::new(),
    };
    walk.tokens(source.parse()?);
    let Walk { aliases, found, .. } = walk;
    Ok(found
        .into_iter()
        .map(|one| Found {
            path: resolve(&aliases, one.path),
            ..one
        })
        .collect())
}

/// Replaces the first name of a path by the path that `use` gave it.
fn resolve(aliases: &HashMap<String, Vec<String>>, mut path: Vec<String>) -> Vec<String> {
    // A chain of aliases is short; the bound ends the endless chain of `use a as b; use b as a`.
    for _ in 0..8 {
        match aliases.get(&path[0]) {
            Some(full) if full[0] != path[0] => path = [&full[..], &path[1..]].concat(),
            Some(full) if full.len() > 1 => return [&full[..], &path[1..]].concat(),
            _ => break,
        }
    }
    path
}

struct Walk {
    module: Vec<String>,
    aliases: HashMap<String, Vec<String>>,
    found: Vec<Found>,
}

impl Walk {
    fn tokens(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(p) if p.as_char() == '#' && is_cfg_test(tokens.get(at + 1)) => {
                    end_of_item(&tokens, at + 2)
                }
                TokenTree::Ident(word) if *word == "use" => self.use_tree(&tokens, at + 1, &[]),
                TokenTree::Ident(word) if *word == "mod" => self.inline_module(&tokens, at),
                TokenTree::Ident(_) => self.path(&tokens, at),
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Enters `mod name { … }`; `mod name;` is another file.
    fn inline_module(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
            (tokens.get(at + 1), tokens.get(at + 2))
        else {
            return at + 1;
        };
        self.module.push(name.to_string());
        self.tokens(body.stream());
        self.module.pop();
        at + 3
    }

    /// A path in an expression or type: `a::b::c`.
    fn path(&mut self, tokens: &[TokenTree], start: usize) -> usize {
        // `.stdout` is a field, not a path.
        let is_field = start > 0 && is_punct(&tokens[start - 1], '.');
        let mut names = vec![tokens[start].to_string()];
        let mut at = start + 1;
        while is_colons(tokens, at) {
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(name)) => names.push(name.to_string()),
                _ => break,
            }
            at += 3;
        }
        let is_macro = tokens.get(at).is_some_and(|t| is_punct(t, '!'))
            && !tokens.get(at + 1).is_some_and(|t| is_punct(t, '='));
        if !is_field {
            self.add(names, &tokens[start], is_macro);
        }
        at
    }

    /// Reads one branch of a `use` tree, from its first token to its last.
    fn use_tree(&mut self, tokens: &[TokenTree], start: usize, prefix: &[String]) -> usize {
        let mut names = prefix.to_vec();
        let mut at = start;
        if is_colons(tokens, at) {
            at += 2;
        }
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(name)) if *name != "as" => {
                    // `use a::{self}` names `a`; `self::a` begins in this module.
                    if *name != "self" || names.is_empty() {
                        names.push(name.to_string());
                    }
                    at += 1;
                }
                Some(TokenTree::Group(group)) => {
                    self.use_group(group, &names);
                    return at + 1;
                }
                _ => break,
            }
            if !is_colons(tokens, at) {
                break;
            }
            at += 2;
        }
        let (alias, end) = match (tokens.get(at), tokens.get(at + 1)) {
            (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(alias))) if *word == "as" => {
                (Some(alias.to_string()), at + 2)
            }
            _ => (names.last().cloned(), at),
        };
        if let Some(first) = tokens.get(start) {
            self.add(names, first, false);
        }
        if let (Some(alias), Some(last)) = (alias, self.found.last()) {
            self.aliases.insert(alias, last.path.clone());
        }
        end
    }

    fn use_group(&mut self, group: &Group, prefix: &[String]) {
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            // A branch ends at a comma; `*` stands for its prefix.
            at = self.use_tree(&tokens, at, prefix).max(at + 1);
            while tokens.get(at).is_some_and(|t| is_punct(t, ',')) {
                at += 1;
            }
        }
    }

    fn add(&mut self, names: Vec<String>, first: &TokenTree, is_macro: bool) {
        let path = self.absolute(names);
        if !path.is_empty() {
            self.found.push(Found {
                path,
                line: first.span().start().line,
                is_macro,
            });
        }
    }

    /// Turns paths that begin with `crate`, `ankh3`, `self` or `super` into paths that begin with
    /// `crate`.
    fn absolute(&self, names: Vec<String>) -> Vec<String> {
        let supers = names.iter().take_while(|name| *name == "super").count();
        let own = |keep: usize, rest: &[String]| {
            let mut path = vec!["crate".to_string()];
            path.extend_from_slice(&self.module[..keep]);
            path.extend_from_slice(rest);
            path
        };
        match names.first().map(String::as_str) {
            Some("ankh3") => own(0, &names[1..]),
            // `self` alone is the receiver of a method.
            Some("self") if names.len() > 1 => own(self.module.len(), &names[1..]),
            Some("super") => own(self.module.len().saturating_sub(supers), &names[supers..]),
            _ => names,
        }
    }
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(p) if p.as_char() == character)
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let joint = matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':' && p.spacing() == Spacing::Joint);
    joint && tokens.get(at + 1).is_some_and(|t| is_punct(t, ':'))
}

/// Whether the tokens after a `#` are `[cfg(test)]`.
pub fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else {
        return false;
    };
    let text: String = group.stream().to_string().split_whitespace().collect();
    group.delimiter() == Delimiter::Bracket && text == "cfg(test)"
}

/// The place after the item that starts at `at`: after its body in braces, or after its semicolon.
pub fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        other => is_punct(other, ';'),
    };
    let length = tokens[at..].iter().position(ends).map_or(0, |i| i + 1);
    // `use a::{b};` and `const A: B = B { … };` have both.
    let semicolon = tokens.get(at + length).is_some_and(|t| is_punct(t, ';'));
    at + length + usize::from(semicolon)
}
