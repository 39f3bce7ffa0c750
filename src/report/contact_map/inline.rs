//! The contact map of the HTML page: one square per pair of residues, darker for higher
//! probabilities, in both triangles.
//!
//! The SVG is written here and not by `plotters`: a list of few pairs becomes one path per colour,
//! the map scales with the page through its `viewBox`, and letters follow the page's colour in dark
//! mode.

use std::fmt::Write;

use maud::{Markup, html};

use super::list::{Contact, ContactList, Measure};
use crate::report::charts::colours::{hex, sequential};
use crate::report::numbers::tick_positions;

/// Steps of the colour scale between 0 and 1.
pub(in crate::report) const COLOURS: usize = 5;
/// Contacts drawn per residue of the protein: with more of them the map would be a blot.
pub(in crate::report) const DRAWN: usize = 3;

/// The map of one protein, in coordinates of residues. Shapes are closed by `{}`: a browser would
/// take whatever follows an open `<rect>` for its content, which is not shown.
pub(in crate::report) fn svg(list: &ContactList) -> Markup {
    let size = list.size().max(1);
    let contacts = list.most_probable(DRAWN * size);
    // Letters and margins are shares of the whole map, whatever the protein's length.
    let unit = size as f64 / 100.0;
    let (margin, letter) = (12.0 * unit, 4.2 * unit);
    let view = format!(
        "{:.2} {:.2} {:.2} {:.2}",
        0.5 - margin,
        0.5 - margin / 3.0,
        size as f64 + 1.3 * margin,
        size as f64 + 1.3 * margin
    );
    html! {
        svg viewBox=(view) role="img" aria-label={ "contact map of " (list.id) } class="map" {
            rect x="0.5" y="0.5" width=(size) height=(size) fill="#fff" stroke="#5a5a5a" stroke-width=(fixed(0.3 * unit)) {}
            @for step in 0..COLOURS {
                @let squares = squares(&contacts, step);
                @if !squares.is_empty() { path fill=(colour(step)) d=(squares) {} }
            }
            line x1="0.5" y1="0.5" x2=(size as f64 + 0.5) y2=(size as f64 + 0.5) stroke="#bbb" stroke-width=(fixed(0.2 * unit)) {}
            @for tick in tick_positions(size, 8.0) {
                text x=(tick) y=(fixed(size as f64 + 0.5 + 1.5 * letter)) font-size=(fixed(letter)) text-anchor="middle" { (tick) }
                text x=(fixed(0.5 - 0.4 * letter)) y=(fixed(tick as f64 + 0.35 * letter)) font-size=(fixed(letter)) text-anchor="end" { (tick) }
            }
        }
    }
}

/// The legend of all maps of a file.
pub(in crate::report) fn colour_key(measure: Measure) -> Markup {
    let label = match measure {
        Measure::Probability => "probability of a contact",
        Measure::Score => "score, as a share of the protein's highest",
    };
    let share = |step: usize| format!("{:.1}", step as f64 / COLOURS as f64);
    html! {
        p.key {
            (label) ": "
            @for step in 0..COLOURS {
                span.swatch style={ "background:" (colour(step)) } {}
                (share(step)) "–" (share(step + 1)) " "
            }
        }
    }
}

/// The colour of a step: that of the step's upper end, so that no contact is white.
fn colour(step: usize) -> String {
    hex(sequential((step + 1) as f64 / COLOURS as f64))
}

fn fixed(number: f64) -> String {
    format!("{number:.2}")
}

/// The squares of one step of the colour scale, as one path.
fn squares(contacts: &[Contact], step: usize) -> String {
    let mut path = String::new();
    for Contact { i, j, probability } in contacts {
        let of_contact = (probability * COLOURS as f64) as usize;
        if of_contact.min(COLOURS - 1) == step {
            for (x, y) in [(i, j), (j, i)] {
                let (x, y) = (*x as f64 - 0.5, *y as f64 - 0.5);
                let _ = write!(path, "M{x} {y}h1v1h-1z");
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contact_is_two_squares_of_its_colour() {
        let contact = |i, j, probability| Contact { i, j, probability };
        let contacts = vec![contact(1, 30, 0.95), contact(2, 9, 0.1)];
        let list = ContactList {
            length: 40,
            ..ContactList::new("a\"<b>".to_owned(), contacts)
        };
        let svg = svg(&list).into_string();
        assert!(svg.contains("M0.5 29.5h1v1h-1zM29.5 0.5h1v1h-1z"), "{svg}");
        assert!(svg.contains("#08306b") && svg.contains("#c6dbef") && !svg.contains("#6baed6"));
        for shape in ["rect", "path", "line", "text"] {
            let (opened, closed) = (format!("<{shape} "), format!("</{shape}>"));
            assert_eq!(svg.matches(&opened).count(), svg.matches(&closed).count());
        }
        assert!(svg.contains("contact map of a&quot;&lt;b&gt;"), "{svg}");
        let key = colour_key(Measure::Probability).into_string();
        assert!(key.contains("probability") && key.contains("#08306b") && key.contains("0.8–1.0"));
    }
}
