//! A contact map as SVG: a square a pair of residues, the darker the surer, both triangles.

use std::fmt::Write;

use maud::{Markup, html};

use super::contacts::{Contact, ContactList};

/// Shades from possible to sure.
const SHADES: [&str; 5] = ["#c6dbef", "#9ecae1", "#6baed6", "#2171b5", "#08306b"];

/// Contacts drawn for each residue of the protein: more would be a blot.
pub(super) const DRAWN: usize = 3;

/// The map of one protein. Coordinates are residues; `viewBox` makes them fit. Shapes are closed by `{}`: a page's parser takes what follows an open
/// `<rect>` for its content, which is not shown.
pub(super) fn svg(list: &ContactList) -> Markup {
    let size = list.size().max(1);
    let contacts = list.surest(DRAWN * size);
    // Letters and rims in units of the whole, whatever the protein's length.
    let unit = size as f64 / 100.0;
    let (rim, letter) = (12.0 * unit, 4.2 * unit);
    let view = format!(
        "{:.2} {:.2} {:.2} {:.2}",
        0.5 - rim,
        0.5 - rim / 3.0,
        size as f64 + 1.3 * rim,
        size as f64 + 1.3 * rim
    );
    html! {
        svg viewBox=(view) role="img" aria-label={ "contact map of " (list.id) } class="map" {
            rect x="0.5" y="0.5" width=(size) height=(size) fill="#fff" stroke="#5a5a5a" stroke-width=(fixed(0.3 * unit)) {}
            @for (shade, colour) in SHADES.iter().enumerate() {
                @let squares = squares(&contacts, shade);
                @if !squares.is_empty() { path fill=(colour) d=(squares) {} }
            }
            line x1="0.5" y1="0.5" x2=(size as f64 + 0.5) y2=(size as f64 + 0.5) stroke="#bbb" stroke-width=(fixed(0.2 * unit)) {}
            @for tick in ticks(size) {
                text x=(tick) y=(fixed(size as f64 + 0.5 + 1.5 * letter)) font-size=(fixed(letter)) text-anchor="middle" { (tick) }
                text x=(fixed(0.5 - 0.4 * letter)) y=(fixed(tick as f64 + 0.35 * letter)) font-size=(fixed(letter)) text-anchor="end" { (tick) }
            }
        }
    }
}

fn fixed(number: f64) -> String {
    format!("{number:.2}")
}

/// The squares of one shade, as one path.
fn squares(contacts: &[Contact], shade: usize) -> String {
    let mut path = String::new();
    for Contact { i, j, probability } in contacts {
        let its = (probability * SHADES.len() as f64) as usize;
        if its.min(SHADES.len() - 1) == shade {
            for (x, y) in [(i, j), (j, i)] {
                let (x, y) = (*x as f64 - 0.5, *y as f64 - 0.5);
                let _ = write!(path, "M{x} {y}h1v1h-1z");
            }
        }
    }
    path
}

/// Positions to name: four to eight round ones.
fn ticks(size: usize) -> impl Iterator<Item = usize> {
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
    let step = steps.into_iter().find(|step| size / step <= 8);
    let step = step.unwrap_or(10_000);
    (step..=size).step_by(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contact_is_two_squares_of_its_shade() {
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
        assert_eq!(
            ticks(40).collect::<Vec<_>>(),
            [5, 10, 15, 20, 25, 30, 35, 40]
        );
    }
}
