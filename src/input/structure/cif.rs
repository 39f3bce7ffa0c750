//! The syntax of CIF 1.1, in which mmCIF is written: <https://www.iucr.org/resources/cif/spec/version1.1/cifsyntax>.
//!
//! A file is read once and in order. Of a data block, the caller gets the rows of the categories
//! that it wants; everything else is passed over. Items outside loops (`_entity_poly.type …`) are
//! the only row of their category, which comes at the end of the block.

use super::text::{Fault, Text};

/// What a file consists of. The text of a tag or a value is in [`Tokens::content`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Block,
    Loop,
    Tag,
    /// A value, which is known unless it is a bare `?` or `.`.
    Value {
        is_known: bool,
    },
    /// A word without meaning here: `save_…`, `global_`, `stop_`.
    Other,
    End,
}

struct Tokens {
    text: Text,
    /// The position in the current line.
    at: usize,
    /// The text of the last token, without quotation marks.
    content: Vec<u8>,
    /// Where the last token began.
    line: u64,
    column: usize,
    is_ended: bool,
}

impl Tokens {
    fn next(&mut self) -> Result<Token, Fault> {
        self.content.clear();
        loop {
            let line = &self.text.line;
            let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
            let start = line[self.at..].iter().position(|byte| !blank(byte));
            let start = start.map(|start| start + self.at);
            self.line = self.text.number();
            self.column = start.unwrap_or(0) + 1;
            match start.map(|start| (start, line[start])) {
                _ if self.is_ended => return Ok(Token::End),
                None | Some((_, b'#')) => {
                    self.is_ended = !self.text.advance()?;
                    self.at = 0;
                }
                Some((0, b';')) if self.at == 0 => return self.text_field(),
                Some((start, quote @ (b'\'' | b'"'))) => return self.quoted(start, quote),
                Some((start, _)) => {
                    let length = line[start..].iter().position(blank);
                    self.at = length.map_or(line.len(), |length| start + length);
                    self.content.extend_from_slice(&line[start..self.at]);
                    return Ok(bare(&self.content));
                }
            }
        }
    }

    /// A value that ends at a quotation mark before a blank or the end of the line.
    fn quoted(&mut self, start: usize, quote: u8) -> Result<Token, Fault> {
        let rest = &self.text.line[start + 1..];
        let ends =
            |at: &usize| rest[*at] == quote && rest.get(at + 1).is_none_or(u8::is_ascii_whitespace);
        let Some(length) = (0..rest.len()).find(ends) else {
            let what = format!("the quotation mark {} is not closed", char::from(quote));
            return Err(Fault::at(self.line, self.column, what));
        };
        self.content.extend_from_slice(&rest[..length]);
        self.at = start + length + 2;
        Ok(Token::Value { is_known: true })
    }

    /// A value of several lines, from one `;` at the beginning of a line to the next.
    fn text_field(&mut self) -> Result<Token, Fault> {
        self.content.extend_from_slice(&self.text.line[1..]);
        loop {
            if !self.text.advance()? {
                let what = "the text that begins with a semicolon is not closed";
                return Err(Fault::at(self.line, self.column, what));
            }
            if self.text.line.first() == Some(&b';') {
                self.at = 1;
                return Ok(Token::Value { is_known: true });
            }
            self.content.push(b'\n');
            self.content.extend_from_slice(&self.text.line);
        }
    }
}

/// The kind of a word without quotation marks.
fn bare(word: &[u8]) -> Token {
    let begins = |start: &[u8]| {
        word.get(..start.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(start))
    };
    match word {
        b"?" | b"." => Token::Value { is_known: false },
        [b'_', ..] => Token::Tag,
        _ if begins(b"data_") => Token::Block,
        _ if word.eq_ignore_ascii_case(b"loop_") => Token::Loop,
        _ if begins(b"save_")
            || word.eq_ignore_ascii_case(b"global_")
            || word.eq_ignore_ascii_case(b"stop_") =>
        {
            Token::Other
        }
        _ => Token::Value { is_known: true },
    }
}

/// A value and its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    text: String,
    is_known: bool,
    pub(super) line: u64,
    pub(super) column: usize,
}

impl Value {
    /// The text; none for `?` and `.`.
    pub(super) fn known(&self) -> Option<&str> {
        self.is_known.then_some(self.text.as_str())
    }
}

/// A row of a category.
pub(super) struct CifRow<'a> {
    /// In lower case, with the underscore: `_atom_site`.
    pub(super) category: &'static str,
    /// The names of the columns, in lower case, without the category.
    pub(super) items: &'a [String],
    /// One value per item.
    pub(super) values: &'a [Value],
    /// Whether the row is the first one under these items.
    pub(super) is_first: bool,
}

impl<'a> CifRow<'a> {
    /// The value of an item; none where the item is missing or its value unknown.
    pub(super) fn get(&self, item: &str) -> Option<&'a Value> {
        let at = self.items.iter().position(|known| known == item)?;
        let value = &self.values[at];
        value.is_known.then_some(value)
    }
}

/// What is done with a row.
pub(super) type Take<'a> = dyn FnMut(&CifRow<'_>) -> Result<(), Fault> + 'a;

/// A CIF file, read block by block.
pub(super) struct Cif {
    tokens: Tokens,
    /// The next token.
    token: Token,
    /// The categories whose rows are wanted.
    wanted: &'static [&'static str],
}

/// The items of a wanted category that are given outside loops.
struct Single {
    category: &'static str,
    items: Vec<String>,
    values: Vec<Value>,
}

impl Cif {
    pub(super) fn new(text: Text, wanted: &'static [&'static str]) -> Result<Self, Fault> {
        let mut cif = Self {
            tokens: Tokens {
                text,
                at: 0,
                content: Vec::new(),
                line: 0,
                column: 0,
                is_ended: false,
            },
            token: Token::End,
            wanted,
        };
        cif.advance()?;
        Ok(cif)
    }

    /// Reads the next data block; false where there is none.
    pub(super) fn block(&mut self, take: &mut Take<'_>) -> Result<bool, Fault> {
        if self.token == Token::End {
            return Ok(false);
        }
        if self.token == Token::Block {
            self.advance()?;
        }
        let mut singles: Vec<Single> = Vec::new();
        loop {
            match self.token {
                Token::Block | Token::End => break,
                Token::Loop => self.table(take)?,
                Token::Tag => self.single(&mut singles)?,
                // A value without a name is a slip in a category that nobody wants, because those
                // of wanted ones are counted.
                Token::Value { .. } | Token::Other => self.advance()?,
            }
        }
        for single in &singles {
            take(&CifRow {
                category: single.category,
                items: &single.items,
                values: &single.values,
                is_first: true,
            })?;
        }
        Ok(true)
    }

    fn advance(&mut self) -> Result<(), Fault> {
        self.token = self.tokens.next()?;
        Ok(())
    }

    /// The wanted category of the current tag, and the item in lower case.
    fn tag(&self) -> (Option<&'static str>, String) {
        let tag = String::from_utf8_lossy(&self.tokens.content).to_ascii_lowercase();
        let (category, item) = tag.split_once('.').unwrap_or((&tag, ""));
        let wanted = self.wanted.iter().find(|wanted| **wanted == category);
        (wanted.copied(), item.to_owned())
    }

    /// The current value.
    fn value(&self, is_known: bool) -> Value {
        Value {
            text: String::from_utf8_lossy(&self.tokens.content).into_owned(),
            is_known,
            line: self.tokens.line,
            column: self.tokens.column,
        }
    }

    /// An item and its value.
    fn single(&mut self, singles: &mut Vec<Single>) -> Result<(), Fault> {
        let (category, item) = self.tag();
        let (line, column) = (self.tokens.line, self.tokens.column);
        self.advance()?;
        let Some(category) = category else {
            return Ok(());
        };
        let Token::Value { is_known } = self.token else {
            return Err(Fault::at(
                line,
                column,
                format!("{category}.{item} has no value"),
            ));
        };
        let at = singles
            .iter()
            .position(|single| single.category == category);
        let at = at.unwrap_or_else(|| {
            singles.push(Single {
                category,
                items: Vec::new(),
                values: Vec::new(),
            });
            singles.len() - 1
        });
        singles[at].items.push(item);
        singles[at].values.push(self.value(is_known));
        self.advance()
    }

    /// A loop: the names of its items, then its rows.
    fn table(&mut self, take: &mut Take<'_>) -> Result<(), Fault> {
        self.advance()?;
        let (mut wanted, mut items) = (None, Vec::new());
        while self.token == Token::Tag {
            let (category, item) = self.tag();
            wanted = wanted.or(category);
            items.push(item);
            self.advance()?;
        }
        let Some(category) = wanted else {
            return Ok(());
        };
        let mut values: Vec<Value> = Vec::with_capacity(items.len());
        let mut is_first = true;
        while let Token::Value { is_known } = self.token {
            values.push(self.value(is_known));
            if values.len() == items.len() {
                take(&CifRow {
                    category,
                    items: &items,
                    values: &values,
                    is_first,
                })?;
                values.clear();
                is_first = false;
            }
            self.advance()?;
        }
        match values.first() {
            None => Ok(()),
            Some(first) => {
                let what = format!(
                    "the last row of the loop {category} has {} values for {} items; is the file complete?",
                    values.len(),
                    items.len()
                );
                Err(Fault::at(first.line, first.column, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The rows of `_a` and `_b`: category, item=value per item.
    fn rows(text: &str) -> Result<Vec<Vec<String>>, String> {
        let text = Text::begin(Box::new(std::io::Cursor::new(text.to_owned()))).unwrap();
        let mut all = Vec::new();
        let blocks = Cell::new(0);
        let read = |cif: &mut Cif, all: &mut Vec<Vec<String>>| {
            cif.block(&mut |row| {
                let mut cells = vec![format!("{}{}", blocks.get(), row.category)];
                for (item, value) in row.items.iter().zip(row.values) {
                    cells.push(format!("{item}={}", value.known().unwrap_or("none")));
                }
                all.push(cells);
                Ok(())
            })
        };
        let shown = |fault: Fault| format!("{fault:?}");
        let mut cif = Cif::new(text, &["_a", "_b"]).map_err(shown)?;
        while read(&mut cif, &mut all).map_err(shown)? {
            blocks.set(blocks.get() + 1);
        }
        Ok(all)
    }

    #[test]
    fn every_way_to_write_a_value() {
        let text = "#\n\nDATA_x\nLOOP_ _A.One\n_a.two #no\n'5'-end' \"say \"it\"\"\n? '?'\n. #c\na#b\n;\n;\n;data_y\nmore ;\n; _c.d e\n";
        let wanted = [
            ["0_a", "one=5'-end", "two=say \"it\""],
            ["0_a", "one=none", "two=?"],
            ["0_a", "one=none", "two=a#b"],
            ["0_a", "one=", "two=data_y\nmore ;"],
        ];
        assert_eq!(rows(text).unwrap(), wanted);
        assert_eq!(rows(&text.replace('\n', "\r\n")).unwrap(), wanted);
    }

    #[test]
    fn items_outside_loops_are_one_row_of_their_block() {
        let text = "data_1\n_b.x 1\n_c.x data\n_b.y 'a b'\nsave_f\n_b.z .\nsave_\ndata_2\n_b.x 2";
        let wanted: [&[&str]; 2] = [&["0_b", "x=1", "y=a b", "z=none"], &["1_b", "x=2"]];
        assert_eq!(rows(text).unwrap(), wanted);
        assert_eq!(rows("").unwrap(), [[""; 0]; 0]);
    }

    #[test]
    fn slips_in_wanted_categories_and_in_the_syntax_are_errors() {
        for (text, place, what) in [
            (
                "data_x\nloop_\n_a.x\n_a.y\n1 2\n 3\n",
                "line: 6, column: Some(2)",
                "1 values for 2",
            ),
            (
                "data_x\n_a.x\n",
                "line: 2, column: Some(1)",
                "_a.x has no value",
            ),
            (
                "data_x\n_c.x 'open\n",
                "line: 2, column: Some(6)",
                "not closed",
            ),
            (
                "data_x\n_c.x\n;open\n",
                "line: 3, column: Some(1)",
                "not closed",
            ),
        ] {
            let error = rows(text).unwrap_err();
            assert!(error.contains(place) && error.contains(what), "{error}");
        }
        // Nobody wants `_c`, whose loop has a value too many.
        let text = "data_x\n_c.x 1 2\nloop_\n_c.y\n_c.z\n1\n_a.x 1\n";
        assert_eq!(rows(text).unwrap(), [["0_a", "x=1"]]);
    }
}
