//! A confusion matrix: one row per true class, one column per predicted class, coloured by the
//! share of the row.

use plotters::prelude::*;

use super::canvas::{Area, DrawingError, Heading, Painting, TextPen, rectangle, shortened};
use super::colours::{AXIS, ink_on, sequential};

/// Pixels of a cell's side.
const CELL: i32 = 64;
const LEFT: i32 = 110;
const TOP: i32 = Heading::HEIGHT + 46;

/// A confusion matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfusionPlot {
    /// Title, and how the predictions were made.
    pub heading: Heading,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// `counts[truth · classes + predicted]`.
    pub counts: Vec<u64>,
}

impl Painting for ConfusionPlot {
    fn size(&self) -> (u32, u32) {
        let side = CELL * self.classes.len() as i32;
        let width = side.max(260).max(self.heading.width());
        ((LEFT + width + 30) as u32, (TOP + side + 40) as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        self.heading.draw(area, LEFT)?;
        let small = TextPen::new(12);
        small.write(area, (LEFT, TOP - 42), "predicted")?;
        small.write(area, (LEFT - 90, TOP - 20), "true")?;
        let n = self.classes.len();
        for (row, name) in self.classes.iter().enumerate() {
            let along = CELL * row as i32 + CELL / 2;
            let name = shortened(name, 12);
            let label = TextPen::new(13);
            label
                .centred()
                .write(area, (LEFT + along, TOP - 20), &name)?;
            let beside = (LEFT - 12, TOP + along - 8);
            label.right_aligned().write(area, beside, &name)?;
            paint_row(area, row, &self.counts[row * n..(row + 1) * n])?;
        }
        let bottom = (LEFT, TOP + CELL * n as i32 + 10);
        small
            .coloured(AXIS)
            .write(area, bottom, "percentages are shares of the row")
    }
}

fn paint_row<B: DrawingBackend>(
    area: &Area<B>,
    row: usize,
    counts: &[u64],
) -> Result<(), DrawingError> {
    let all = counts.iter().sum::<u64>().max(1);
    for (column, count) in counts.iter().enumerate() {
        let share = *count as f64 / all as f64;
        let (x, y) = (LEFT + CELL * column as i32, TOP + CELL * row as i32);
        let colour = sequential(share);
        rectangle(area, (x, y), (CELL - 2, CELL - 2), colour)?;
        let middle = x + CELL / 2;
        let pen = |size| TextPen::new(size).centred().coloured(ink_on(colour));
        let percent = format!("{:.1} %", 100.0 * share);
        pen(12).write(area, (middle, y + 16), &percent)?;
        pen(10).write(area, (middle, y + 34), &count.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::canvas::svg;
    use super::*;

    #[test]
    fn shares_are_those_of_rows() {
        let plot = ConfusionPlot {
            heading: Heading::new("ssp3", "model nano"),
            classes: vec!["H".to_owned(), "E".to_owned()],
            counts: vec![3, 1, 0, 0],
        };
        let text = svg(&plot).unwrap();
        for word in [
            "75.0 %",
            "25.0 %",
            "0.0 %",
            "ssp3",
            "model nano",
            "predicted",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
