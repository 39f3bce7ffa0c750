//! A confusion matrix: a row a true class, a column a predicted one, shaded by the share of the row.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{rectangle, shade, write};
use crate::report::picture::{Area, Painting, PictureError};

const CELL: i32 = 64;
const LEFT: i32 = 110;
const TOP: i32 = 80;

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfusionPlot {
    /// Above the picture.
    pub title: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// `counts[truth · classes + predicted]`.
    pub counts: Vec<u64>,
}

impl Painting for ConfusionPlot {
    fn size(&self) -> (u32, u32) {
        let side = CELL * self.classes.len() as i32;
        ((LEFT + side.max(260) + 30) as u32, (TOP + side + 30) as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError> {
        let black = |side| (side, BLACK);
        write(area, &self.title, (LEFT, 8), 16, black(HPos::Left))?;
        write(area, "predicted", (LEFT, TOP - 42), 12, black(HPos::Left))?;
        write(area, "true", (LEFT - 90, TOP + 4), 12, black(HPos::Left))?;
        let n = self.classes.len();
        for (row, name) in self.classes.iter().enumerate() {
            let along = CELL * row as i32 + CELL / 2;
            write(
                area,
                name,
                (LEFT + along, TOP - 20),
                13,
                black(HPos::Center),
            )?;
            write(
                area,
                name,
                (LEFT - 12, TOP + along - 8),
                13,
                black(HPos::Right),
            )?;
            let counts = &self.counts[row * n..(row + 1) * n];
            let all = counts.iter().sum::<u64>().max(1);
            for (column, count) in counts.iter().enumerate() {
                let share = *count as f64 / all as f64;
                let (x, y) = (LEFT + CELL * column as i32, TOP + CELL * row as i32);
                rectangle(area, (x, y), (CELL - 2, CELL - 2), shade(share))?;
                let ink = if share > 0.5 { WHITE } else { BLACK };
                let middle = x + CELL / 2;
                let percent = format!("{:.1} %", 100.0 * share);
                write(area, &percent, (middle, y + 16), 12, (HPos::Center, ink))?;
                write(
                    area,
                    &count.to_string(),
                    (middle, y + 34),
                    10,
                    (HPos::Center, ink),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::svg;

    #[test]
    fn shares_are_those_of_rows() {
        let plot = ConfusionPlot {
            title: "ssp3".to_owned(),
            classes: vec!["H".to_owned(), "E".to_owned()],
            counts: vec![3, 1, 0, 0],
        };
        let text = svg(&plot).unwrap();
        for word in ["75.0 %", "25.0 %", "0.0 %", "ssp3", "predicted"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
