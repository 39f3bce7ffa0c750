//! Contacts: one map per protein, its most probable pairs, and how many of them are long-range.

use std::collections::HashMap;

use maud::{Markup, html};

use crate::report::contact_map::{self, COLOURS, Contact, ContactList, DRAWN, Measure};
use crate::report::numbers::short;
use crate::report::page::html::table;
use crate::report::page::results::Limits;
use crate::sequence::counted;

/// The least separation along the chain of a long-range contact.
const LONG_RANGE: usize = 24;

pub(super) fn body(
    lists: &[ContactList],
    lengths: &HashMap<&str, usize>,
    limits: Limits,
) -> Markup {
    let with_length = |list: &ContactList| ContactList {
        length: lengths
            .get(list.id.as_str())
            .copied()
            .unwrap_or(list.length),
        ..list.clone()
    };
    let shown = lists.iter().take(limits.maps).map(with_length);
    let has = |measure| lists.iter().any(|list| list.measure == measure);
    html! {
        p {
            (counted(lists.len(), "protein")) ". Both triangles of a map show the same prediction, at most "
            (DRAWN) " pairs per residue, coloured in " (COLOURS) " steps."
        }
        @for measure in [Measure::Probability, Measure::Score] {
            @if has(measure) { (contact_map::colour_key(measure)) }
        }
        @if has(Measure::Score) {
            p {
                "These are scores, divided by the highest of each protein: an order of its pairs, not probabilities."
            }
        }
        div.maps { @for list in shown { (map(&list)) } }
        @if lists.len() > limits.maps {
            p.note {
                (limits.maps) " of " (lists.len()) " proteins are shown; the file has all of them."
            }
        }
    }
}

fn map(list: &ContactList) -> Markup {
    html! {
        figure {
            (contact_map::svg(list))
            figcaption {
                b { (list.id) } ": " (list.size()) " residues, " (counted(list.contacts.len(), "pair"))
                @match list.measure {
                    Measure::Probability => { ", " (long_range(list)) " long-range (≥ " (LONG_RANGE) ") above 0.5" }
                    Measure::Score => { ", " (long_range(list)) " of them long-range (≥ " (LONG_RANGE) ")" }
                }
            }
            (most_probable(list))
        }
    }
}

/// The number of long-range pairs: the probable ones of probabilities, all of scores.
fn long_range(list: &ContactList) -> usize {
    let counts = |contact: &&Contact| match list.measure {
        Measure::Probability => contact.probability > 0.5,
        Measure::Score => true,
    };
    let is_far = |contact: &&Contact| contact.j - contact.i >= LONG_RANGE;
    list.contacts.iter().filter(is_far).filter(counts).count()
}

fn most_probable(list: &ContactList) -> Markup {
    let rows = html! {
        @for contact in list.most_probable(10) {
            tr {
                td.n { (contact.i) }
                td.n { (contact.j) }
                td.n { (contact.j - contact.i) }
                td.n { (short(contact.probability)) }
            }
        }
    };
    html! {
        details {
            summary { "highest pairs" }
            (table(&["i", "j", "separation", list.measure.name()], &rows))
        }
    }
}
