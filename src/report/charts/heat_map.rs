//! All substitutions of a protein as a heat map: one column per residue, one row per standard
//! residue, red where the substitution scores below the protein's own residue, blue where it scores
//! above.

use plotters::prelude::*;

use super::axes::{ColourBar, swatch};
use super::canvas::{Area, DrawingError, Heading, Painting, TextPen, rectangle};
use super::colours::{MISSING, diverging};
use crate::report::numbers::tick_positions;

/// The rows from top to bottom: similar residues lie side by side.
const ROWS: &[u8; 20] = b"GAVLIMCFYWHKRQNEDSTP";
/// Pixels of a row.
const ROW: i32 = 16;
const LEFT: i32 = 50;
const TOP: i32 = Heading::HEIGHT + 20;
const RIGHT: i32 = 24 + ColourBar::WIDTH;
const BOTTOM: i32 = 66;
/// The protein's own residue.
const OWN: RGBColor = RGBColor(60, 60, 60);

/// The scores of substitutions.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    id: String,
    made_by: String,
    residues: Vec<u8>,
    /// 20 values per residue in the order of [`ROWS`]; NaN where there is none.
    values: Vec<[f64; 20]>,
}

impl HeatMap {
    /// `changes`: position (from 1), the residue put there, and the score.
    pub fn new(
        id: &str,
        residues: &[u8],
        changes: impl IntoIterator<Item = (usize, u8, f64)>,
    ) -> Self {
        let mut values = vec![[f64::NAN; 20]; residues.len()];
        for (position, mutant, score) in changes {
            let row = ROWS.iter().position(|row| *row == mutant);
            if let Some((column, row)) = values.get_mut(position - 1).zip(row) {
                column[row] = score;
            }
        }
        Self {
            id: id.to_owned(),
            made_by: String::new(),
            residues: residues.to_vec(),
            values,
        }
    }

    /// Adds the subtitle, such as the model and the method.
    pub fn made_by(self, made_by: String) -> Self {
        Self { made_by, ..self }
    }

    fn heading(&self) -> Heading {
        Heading::new(&self.id, &self.made_by)
    }

    /// The largest magnitude, which has the strongest colour.
    fn extreme(&self) -> f64 {
        let values = self.values.iter().flatten();
        let finite = values.filter(|value| value.is_finite());
        let extreme = finite.fold(0.0, |extreme: f64, value| extreme.max(value.abs()));
        if extreme > 0.0 { extreme } else { 1.0 }
    }

    /// Pixels of a column: wide ones for a short protein, never less than one.
    fn column_width(&self) -> i32 {
        (1400 / self.residues.len().max(1)).clamp(1, 16) as i32
    }

    /// Pixels from the left edge to the end of the columns or of the words around the cells.
    fn width(&self) -> i32 {
        let columns = self.column_width() * self.residues.len() as i32;
        columns.max(360).max(self.heading().width() - RIGHT)
    }

    fn paint_cells<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        let (width, extreme) = (self.column_width(), self.extreme());
        for (column, (residue, values)) in self.residues.iter().zip(&self.values).enumerate() {
            for (row, (letter, value)) in ROWS.iter().zip(values).enumerate() {
                let colour = match value {
                    _ if letter == residue => OWN,
                    value if value.is_nan() => MISSING,
                    value => diverging(value / extreme),
                };
                let corner = (LEFT + width * column as i32, TOP + ROW * row as i32);
                rectangle(area, corner, (width, ROW), colour)?;
            }
        }
        Ok(())
    }

    fn paint_labels<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        for (row, letter) in ROWS.iter().enumerate() {
            let at = (LEFT - 12, TOP + ROW * row as i32 + 2);
            let letter = char::from(*letter).to_string();
            TextPen::new(12).centred().write(area, at, &letter)?;
        }
        let bottom = TOP + ROW * ROWS.len() as i32;
        let (length, width) = (self.residues.len(), self.column_width());
        // Forty pixels per label, so that labels do not meet.
        let ticks = tick_positions(length, f64::from(width) * length as f64 / 40.0);
        let first = (length > 0).then_some(1);
        for position in first.into_iter().chain(ticks.filter(|tick| *tick > 1)) {
            let x = LEFT + width * (position as i32 - 1) + width / 2;
            rectangle(area, (x, bottom), (1, 4), BLACK)?;
            let number = position.to_string();
            TextPen::new(11)
                .centred()
                .write(area, (x, bottom + 6), &number)?;
        }
        TextPen::new(12).write(area, (LEFT, bottom + 22), "position")
    }

    fn paint_legend<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        let height = ROW * ROWS.len() as i32;
        let bar = ColourBar {
            label: "score",
            low: -self.extreme(),
            high: self.extreme(),
            colour: &|share| diverging(2.0 * share - 1.0),
        };
        bar.draw(area, (LEFT + self.width() + 24, TOP), height)?;
        let below = TOP + height + 44;
        swatch(area, (LEFT, below), OWN, "the protein's own residue")?;
        swatch(area, (LEFT + 220, below), MISSING, "no score")
    }
}

impl Painting for HeatMap {
    fn size(&self) -> (u32, u32) {
        let height = TOP + ROW * ROWS.len() as i32 + BOTTOM;
        ((LEFT + self.width() + RIGHT) as u32, height as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        self.heading().draw(area, LEFT)?;
        self.paint_cells(area)?;
        self.paint_labels(area)?;
        self.paint_legend(area)
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{pixels, svg};
    use super::*;

    fn map() -> HeatMap {
        let changes = [(1, b'A', -2.0), (1, b'G', 1.0), (3, b'W', f64::NAN)];
        HeatMap::new("P1 & co", b"MKX", changes).made_by("model nano, method masked".to_owned())
    }

    #[test]
    fn the_strongest_colour_is_the_largest_magnitude() {
        let map = map();
        assert_eq!(map.extreme(), 2.0);
        assert_eq!(map.values[0][1], -2.0);
        assert_eq!(HeatMap::new("", b"MK", []).extreme(), 1.0);
    }

    #[test]
    fn a_vector_picture_has_one_cell_per_substitution_and_a_legend() {
        let svg = svg(&map()).unwrap();
        for words in [
            "P1 &amp; co",
            "model nano, method masked",
            "position",
            "own residue",
            "no score",
        ] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(svg.matches("<rect").count() >= 60);
        // A1 has the lowest score, −2; the protein's own M is dark grey.
        assert!(svg.contains("#B2182B") && svg.contains("#3C3C3C"), "{svg}");
    }

    #[test]
    fn a_bitmap_has_colours_and_letters() {
        let (map, pixels) = (map(), pixels(&map()).unwrap());
        let (width, height) = map.size();
        assert_eq!(pixels.len(), 3 * (width * height) as usize);
        let at = |x: i32, y: i32| {
            let start = 3 * (y as u32 * width + x as u32) as usize;
            [pixels[start], pixels[start + 1], pixels[start + 2]]
        };
        let column = map.column_width();
        assert_eq!(at(LEFT + column / 2, TOP + ROW + ROW / 2), [178, 24, 43]);
        let dark = |(x, y): (i32, i32)| at(x, y).iter().all(|part| *part < 128);
        let title = (LEFT..LEFT + 80).flat_map(|x| (8..28).map(move |y| (x, y)));
        assert!(
            title.filter(|at| dark(*at)).count() > 20,
            "no title was drawn"
        );
    }
}
