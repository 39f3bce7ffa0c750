//! The contact map of one protein as a picture: the prediction above the diagonal; below it the
//! prediction again or, where a structure is known, its contacts.

use plotters::prelude::*;

use super::list::Measure;
use crate::report::charts::axes::{ColourBar, frame, swatch};
use crate::report::charts::canvas::{Area, DrawingError, Heading, Painting, TextPen, rectangle};
use crate::report::charts::colours::{MISSING, RED, sequential};
use crate::report::numbers::tick_positions;

const LEFT: i32 = 60;
const TOP: i32 = Heading::HEIGHT + 24;
const RIGHT: i32 = 24 + ColourBar::WIDTH;
const BOTTOM: i32 = 84;

/// A contact map.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactPlot {
    /// The protein, and how its contacts were predicted.
    pub heading: Heading,
    /// Residues of the protein.
    pub length: usize,
    /// `(length, length)`, symmetric.
    pub values: Vec<f32>,
    /// The meaning of the values, which decides the end of the colour scale.
    pub measure: Measure,
    /// For each ordered pair 1 in contact, 0 not in contact, −1 unknown; drawn below the diagonal.
    pub native: Option<Vec<i8>>,
}

impl ContactPlot {
    /// The value with the darkest colour: 1 for probabilities, the highest value for scores.
    fn highest(&self) -> f64 {
        match self.measure {
            Measure::Probability => 1.0,
            Measure::Score => {
                let highest = self.values.iter().copied().fold(0.0, f32::max);
                f64::from(highest.max(f32::MIN_POSITIVE))
            }
        }
    }

    /// Pixels per residue.
    fn cell(&self) -> i32 {
        (900 / self.length.max(1)).clamp(1, 12) as i32
    }

    /// Pixels of the map's side.
    fn side(&self) -> i32 {
        self.cell() * self.length as i32
    }

    /// Pixels from the left edge of the map to its colour bar.
    fn width(&self) -> i32 {
        self.side().max(440).max(self.heading.width() - RIGHT)
    }

    fn colour(&self, row: usize, column: usize, highest: f64) -> RGBColor {
        let pair = row * self.length + column;
        match &self.native {
            Some(native) if row > column => match native[pair] {
                1 => RED,
                0 => WHITE,
                _ => MISSING,
            },
            _ => sequential(f64::from(self.values[pair]) / highest),
        }
    }

    fn paint_cells<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        let (cell, highest) = (self.cell(), self.highest());
        for row in 0..self.length {
            for column in 0..self.length {
                let colour = self.colour(row, column, highest);
                // Most of a map is white, as the background is already.
                if colour != WHITE {
                    let corner = (LEFT + cell * column as i32, TOP + cell * row as i32);
                    rectangle(area, corner, (cell, cell), colour)?;
                }
            }
        }
        Ok(())
    }

    fn paint_axes<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        let (cell, side) = (self.cell(), self.side());
        let pen = TextPen::new(11);
        for position in tick_positions(self.length, 8.0) {
            let along = cell * (position as i32 - 1) + cell / 2;
            let number = position.to_string();
            rectangle(area, (LEFT + along, TOP + side), (1, 4), BLACK)?;
            let below = (LEFT + along, TOP + side + 6);
            pen.centred().write(area, below, &number)?;
            rectangle(area, (LEFT - 5, TOP + along), (4, 1), BLACK)?;
            let beside = (LEFT - 8, TOP + along - 6);
            pen.right_aligned().write(area, beside, &number)?;
        }
        frame(area, (LEFT, TOP), (side, side))?;
        TextPen::new(12).write(area, (LEFT, TOP + side + 24), "position")
    }

    fn paint_legend<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        let highest = self.highest();
        let bar = ColourBar {
            label: self.measure.name(),
            low: 0.0,
            high: highest,
            colour: &sequential,
        };
        let height = self.side().clamp(80, 240);
        bar.draw(area, (LEFT + self.width() + 24, TOP), height)?;
        if self.native.is_some() {
            let below = TOP + self.side().max(80) + 44;
            swatch(
                area,
                (LEFT, below),
                RED,
                "below the diagonal: contacts of the structure",
            )?;
            let meaning = "not in the structure, or too close in the chain to count";
            swatch(area, (LEFT, below + 18), MISSING, meaning)?;
        }
        Ok(())
    }
}

impl Painting for ContactPlot {
    fn size(&self) -> (u32, u32) {
        let height = TOP + self.side().max(100) + BOTTOM;
        ((LEFT + self.width() + RIGHT) as u32, height as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        self.heading.draw(area, LEFT)?;
        self.paint_cells(area)?;
        self.paint_axes(area)?;
        self.paint_legend(area)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::charts::canvas::svg;

    fn plot(native: Option<Vec<i8>>, highest: f32, measure: Measure) -> ContactPlot {
        let mut values = vec![0.0; 9];
        (values[2], values[6]) = (highest, highest);
        ContactPlot {
            heading: Heading::new("P1", "model nano, method head"),
            length: 3,
            values,
            measure,
            native,
        }
    }

    #[test]
    fn the_prediction_is_above_the_diagonal_and_the_structure_below() {
        let native = Some(vec![0, 0, 1, 0, 0, 0, 1, -1, 0]);
        let plot = plot(native, 1.0, Measure::Probability);
        assert_eq!(plot.colour(0, 2, 1.0), sequential(1.0));
        assert_eq!(plot.colour(2, 0, 1.0), RED);
        assert_eq!(plot.colour(2, 1, 1.0), MISSING);
        assert_eq!(plot.colour(1, 0, 1.0), WHITE);
        let text = svg(&plot).unwrap();
        for words in [
            "P1",
            "model nano, method head",
            "probability",
            "contacts of the structure",
            "not in the structure",
            "#B2182B",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn without_a_structure_both_sides_are_predictions() {
        let plot = plot(None, 1.0, Measure::Probability);
        assert_eq!(plot.colour(2, 0, 1.0), sequential(1.0));
        assert!(!svg(&plot).unwrap().contains("structure"));
    }

    #[test]
    fn a_low_probability_is_pale_and_the_highest_score_is_dark() {
        let darkest = |text: &str| text.contains("#08306B");
        let probability = plot(None, 0.06, Measure::Probability);
        assert_eq!(probability.highest(), 1.0);
        let colour = probability.colour(0, 2, probability.highest());
        assert_eq!(colour, sequential(f64::from(0.06_f32)));
        let score = plot(None, 0.06, Measure::Score);
        let colour = score.colour(0, 2, score.highest());
        assert_eq!(colour, sequential(1.0));
        let text = svg(&score).unwrap();
        assert!(darkest(&text) && text.contains("score"), "{text}");
        assert!(text.contains("0.06"), "{text}");
    }
}
