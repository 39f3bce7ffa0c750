//! A contact map: predictions above the diagonal, and below it the same or, where a structure is known, its contacts.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{rectangle, shade, step, write};
use crate::report::picture::{Area, Painting, PictureError};

const LEFT: i32 = 60;
const TOP: i32 = 40;
const RIGHT: i32 = 110;
const BOTTOM: i32 = 50;
/// A residue that was not seen in the structure.
const UNSEEN: RGBColor = RGBColor(232, 232, 232);
/// Contacts of the structure.
const NATIVE: RGBColor = RGBColor(178, 24, 43);
const GREY: RGBColor = RGBColor(120, 120, 120);

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactPlot {
    /// Above the picture.
    pub title: String,
    /// Residues.
    pub length: usize,
    /// `(length, length)`, symmetric.
    pub values: Vec<f32>,
    /// What the darkest colour stands for.
    pub highest: f32,
    /// What the values are, such as `probability`.
    pub scale: String,
    /// For each ordered pair 1 touching, 0 not, −1 not known; drawn below the diagonal.
    pub native: Option<Vec<i8>>,
}

impl ContactPlot {
    /// Pixels a residue.
    fn cell(&self) -> i32 {
        (900 / self.length.max(1)).clamp(1, 12) as i32
    }

    /// Pixels of the map's side.
    fn side(&self) -> i32 {
        self.cell() * self.length as i32
    }

    fn colour(&self, row: usize, column: usize) -> RGBColor {
        let pair = row * self.length + column;
        match &self.native {
            Some(native) if row > column => match native[pair] {
                1 => NATIVE,
                0 => WHITE,
                _ => UNSEEN,
            },
            _ => shade(f64::from(self.values[pair] / self.highest)),
        }
    }

    fn axes<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError> {
        let (cell, side) = (self.cell(), self.side());
        let every = step(self.length as f64, 8.0).max(1.0) as usize;
        for position in (every..=self.length).step_by(every) {
            let at = cell * (position as i32 - 1) + cell / 2;
            let words = position.to_string();
            rectangle(area, (LEFT + at, TOP + side), (1, 4), BLACK)?;
            write(
                area,
                &words,
                (LEFT + at, TOP + side + 6),
                11,
                (HPos::Center, BLACK),
            )?;
            rectangle(area, (LEFT - 5, TOP + at), (4, 1), BLACK)?;
            write(
                area,
                &words,
                (LEFT - 8, TOP + at - 6),
                11,
                (HPos::Right, BLACK),
            )?;
        }
        for (corner, size) in [
            ((0, 0), (side, 1)),
            ((0, side), (side, 1)),
            ((0, 0), (1, side)),
            ((side, 0), (1, side)),
        ] {
            rectangle(area, (LEFT + corner.0, TOP + corner.1), size, GREY)?;
        }
        write(
            area,
            "position",
            (LEFT, TOP + side + 26),
            12,
            (HPos::Left, BLACK),
        )?;
        if self.native.is_some() {
            let words = "below the diagonal: contacts of the structure";
            write(
                area,
                words,
                (LEFT + side, TOP + side + 26),
                12,
                (HPos::Right, NATIVE),
            )?;
        }
        Ok(())
    }

    fn legend<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError> {
        let (x, height) = (LEFT + self.side().max(320) + 24, self.side().clamp(80, 240));
        for y in 0..height {
            let share = 1.0 - f64::from(y) / f64::from(height - 1);
            rectangle(area, (x, TOP + y), (14, 1), shade(share))?;
        }
        for (share, value) in [(0.0, self.highest), (0.5, self.highest / 2.0), (1.0, 0.0)] {
            let y = TOP + (f64::from(height) * share) as i32 - 6;
            write(
                area,
                &format!("{value:.2}"),
                (x + 20, y),
                11,
                (HPos::Left, BLACK),
            )?;
        }
        write(area, &self.scale, (x, TOP - 22), 12, (HPos::Left, BLACK))
    }
}

impl Painting for ContactPlot {
    fn size(&self) -> (u32, u32) {
        let side = self.side().max(320);
        (
            (LEFT + side + RIGHT) as u32,
            (TOP + self.side().max(100) + BOTTOM) as u32,
        )
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError> {
        write(area, &self.title, (LEFT, 8), 16, (HPos::Left, BLACK))?;
        let cell = self.cell();
        for row in 0..self.length {
            for column in 0..self.length {
                let colour = self.colour(row, column);
                // What is white already need not be drawn: most of a map.
                if colour != WHITE {
                    let corner = (LEFT + cell * column as i32, TOP + cell * row as i32);
                    rectangle(area, corner, (cell, cell), colour)?;
                }
            }
        }
        self.axes(area)?;
        self.legend(area)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::svg;

    fn plot(native: Option<Vec<i8>>) -> ContactPlot {
        ContactPlot {
            title: "P1".to_owned(),
            length: 3,
            values: vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
            highest: 1.0,
            scale: "probability".to_owned(),
            native,
        }
    }

    #[test]
    fn predictions_stand_above_and_the_structure_below() {
        let plot = plot(Some(vec![0, 0, 1, 0, 0, 0, 1, -1, 0]));
        assert_eq!(plot.colour(0, 2), shade(1.0));
        assert_eq!(plot.colour(2, 0), NATIVE);
        assert_eq!(plot.colour(2, 1), UNSEEN);
        assert_eq!(plot.colour(1, 0), WHITE);
        let text = svg(&plot).unwrap();
        assert!(text.contains("probability") && text.contains("contacts of the structure"));
        assert!(text.contains("#B2182B"), "{text}");
    }

    #[test]
    fn without_a_structure_both_sides_are_predictions() {
        let plot = plot(None);
        assert_eq!(plot.colour(2, 0), shade(1.0));
        assert!(!svg(&plot).unwrap().contains("structure"));
    }
}
