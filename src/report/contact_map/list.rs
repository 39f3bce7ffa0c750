//! The contacts of a protein as a list of pairs.

/// A pair of residues, counted from 1, `i < j`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contact {
    /// The residue nearer to the start of the chain.
    pub i: usize,
    /// The residue nearer to its end.
    pub j: usize,
    /// The predicted probability, or the score as a share of the protein's highest.
    pub probability: f64,
}

/// The meaning of the numbers of contacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The probability of a contact.
    Probability,
    /// A number that only orders the pairs of a protein.
    Score,
}

impl Measure {
    /// The name of the column in tables: `probability` or `score`.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Probability => "probability",
            Measure::Score => "score",
        }
    }

    /// The measure with this name; everything but `probability` is a score.
    pub fn named(name: &str) -> Self {
        if name == Measure::Probability.name() {
            Measure::Probability
        } else {
            Measure::Score
        }
    }
}

impl Contact {
    /// Reads three words; the error says what is wrong with them.
    pub(in crate::report) fn parse(i: &str, j: &str, probability: &str) -> Result<Self, String> {
        let position = |text: &str| text.parse::<usize>().ok().filter(|position| *position > 0);
        let (first, second) = position(i)
            .zip(position(j))
            .ok_or_else(|| format!("{i} {j} is not a pair of positions, which count from 1"))?;
        let probability = probability
            .parse()
            .ok()
            .filter(|p| (0.0..=1.0).contains(p))
            .ok_or_else(|| format!("{probability} is not a probability"))?;
        Ok(Contact {
            i: first.min(second),
            j: first.max(second),
            probability,
        })
    }

    /// Like [`Contact::parse`] with a score, which is divided by `highest`; a negative score
    /// becomes 0.
    pub(in crate::report) fn scaled(
        i: &str,
        j: &str,
        value: &str,
        highest: f64,
    ) -> Result<Self, String> {
        let number: f64 = value
            .parse()
            .map_err(|_| format!("{value} is not a number"))?;
        let share = if highest > 0.0 {
            (number / highest).max(0.0)
        } else {
            0.0
        };
        Self::parse(i, j, &share.to_string())
    }
}

/// The contacts of one protein.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactList {
    /// The protein's id.
    pub id: String,
    /// Residues of the protein; 0 where the file does not say.
    pub length: usize,
    /// The meaning of the numbers.
    pub measure: Measure,
    /// The pairs in the file's order.
    pub contacts: Vec<Contact>,
}

impl ContactList {
    /// A list of probabilities for a protein whose length is not known.
    pub fn new(id: String, contacts: Vec<Contact>) -> Self {
        ContactList {
            id,
            length: 0,
            measure: Measure::Probability,
            contacts,
        }
    }

    /// Residues that a map must show.
    pub fn size(&self) -> usize {
        let last = self.contacts.iter().map(|contact| contact.j).max();
        self.length.max(last.unwrap_or(0))
    }

    /// The `count` contacts of the highest probability, the highest first.
    pub fn most_probable(&self, count: usize) -> Vec<Contact> {
        let mut contacts = self.contacts.clone();
        contacts.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        contacts.truncate(count);
        contacts
    }
}
