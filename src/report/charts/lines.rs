//! Curves over the steps of a run: one coordinate system, or a grid of several.

use plotters::prelude::*;

use super::axes::{Axis, Plane, decimals, fixed, plane};
use super::canvas::{Area, DrawingError, Heading, Painting, TextPen, drawing, shortened};
use super::colours::CURVES;

/// Pixels of a chart in a grid.
const IN_GRID: (u32, u32) = (640, 400);
/// Pixels of a chart alone.
const ALONE: (u32, u32) = (460, 260);
/// Pixels of the column with the names of curves: a loss may go through any corner of the chart
/// itself.
const LEGEND: u32 = 112;
/// The share of values that are always shown; the few above are drawn at the upper edge, so that a
/// first loss does not flatten all others.
const SHOWN: f64 = 0.98;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its entry in the legend; without an entry if empty.
    pub name: String,
    /// Step and value, in the order of steps; values that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: LineStyle,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStyle {
    /// A line.
    Plain,
    /// A line with a dot per point, where points are few.
    Marked,
    /// A pale line in the colour of the next curve of the list.
    Faint,
}

/// Curves in one coordinate system.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// Caption; without one if empty.
    pub title: String,
    /// The vertical axis.
    pub y_label: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// Charts, two in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartGrid {
    /// Above all charts.
    pub heading: Heading,
    /// From left to right, then downwards.
    pub charts: Vec<LineChart>,
}

/// The exponential moving average of `values` over about `span` of them, with its start corrected;
/// values that are not finite are skipped.
pub fn smoothed(values: &[f64], span: f64) -> Vec<f64> {
    let decay = 1.0 - 1.0 / span.max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |value: &f64| {
        if value.is_finite() {
            sum = decay * sum + value;
            weight = decay * weight + 1.0;
        }
        sum / weight
    };
    values.iter().map(average).collect()
}

impl Painting for ChartGrid {
    fn size(&self) -> (u32, u32) {
        let rows = self.charts.len().div_ceil(2) as u32;
        (2 * IN_GRID.0, Heading::HEIGHT as u32 + rows * IN_GRID.1)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        self.heading.draw(area, 16)?;
        let (_, below) = area.split_vertically(Heading::HEIGHT);
        let places = below.split_evenly((self.charts.len().div_ceil(2), 2));
        for (chart, place) in self.charts.iter().zip(&places) {
            chart.paint(place)?;
        }
        Ok(())
    }
}

impl Painting for LineChart {
    fn size(&self) -> (u32, u32) {
        ALONE
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        let ranges = self.ranges();
        let (width, _) = area.dim_in_pixel();
        let (area, beside) = area.split_horizontally(width - self.legend_width());
        let mut plane = self.paint_axes(&area, &ranges)?;
        let (mut number, mut row) = (0, 0);
        for curve in &self.curves {
            let colour = CURVES[number % CURVES.len()];
            curve.paint(&mut plane, colour, ranges.values.1)?;
            if !curve.name.is_empty() {
                paint_name(&beside, row, &curve.name, colour)?;
                row += 1;
            }
            number += usize::from(curve.style != LineStyle::Faint);
        }
        Ok(())
    }
}

/// Which part of the plane a chart shows.
struct Ranges {
    steps: (f64, f64),
    values: (f64, f64),
    /// Some values lie above the shown range.
    is_cut: bool,
}

impl LineChart {
    /// Whether there is no point to draw.
    pub fn is_empty(&self) -> bool {
        let mut points = self.curves.iter().flat_map(|curve| &curve.points);
        !points.any(|(_, value)| value.is_finite())
    }

    fn legend_width(&self) -> u32 {
        let is_named = self.curves.iter().any(|curve| !curve.name.is_empty());
        if is_named { LEGEND } else { 0 }
    }

    fn ranges(&self) -> Ranges {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let points: Vec<_> = points.filter(|(_, value)| value.is_finite()).collect();
        let steps = points.iter().map(|(step, _)| *step);
        let mut values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        let (Some(&lowest), Some(&highest)) = (values.first(), values.last()) else {
            return Ranges {
                steps: (0.0, 1.0),
                values: (0.0, 1.0),
                is_cut: false,
            };
        };
        let place = ((values.len() - 1) as f64 * SHOWN).ceil() as usize;
        let shown = values[place];
        // The range is cut only where that helps to see the rest.
        let is_cut = highest - lowest > 1.5 * (shown - lowest) && shown > lowest;
        let top = if is_cut { shown } else { highest };
        let margin = match 0.05 * (top - lowest) {
            0.0 => 0.05 * top.abs().max(1e-9),
            margin => margin,
        };
        let first = steps.clone().fold(f64::INFINITY, f64::min);
        let last = steps.fold(f64::NEG_INFINITY, f64::max).max(first + 1.0);
        Ranges {
            steps: (first, last),
            values: (lowest - margin, top + margin),
            is_cut,
        }
    }

    fn paint_axes<'a, B: DrawingBackend + 'a>(
        &self,
        area: &Area<B>,
        ranges: &Ranges,
    ) -> Result<Plane<'a, B>, DrawingError> {
        let (low, high) = ranges.values;
        let caption = if ranges.is_cut {
            let note = format!("{} (values above {high:.3} at the upper edge)", self.title);
            note.trim_start().to_owned()
        } else {
            self.title.clone()
        };
        let digits = decimals(high - low);
        let x = Axis {
            label: "step",
            range: ranges.steps,
            ticks: 6,
            format: &|step| format!("{step:.0}"),
        };
        let y = Axis {
            label: &self.y_label,
            range: ranges.values,
            ticks: 6,
            format: &|value| fixed(value, digits),
        };
        plane(area, &caption, &x, &y)
    }
}

impl Curve {
    fn paint<B: DrawingBackend>(
        &self,
        plane: &mut Plane<'_, B>,
        colour: RGBColor,
        top: f64,
    ) -> Result<(), DrawingError> {
        let style = match self.style {
            LineStyle::Faint => colour.mix(0.3).stroke_width(1),
            LineStyle::Plain | LineStyle::Marked => colour.stroke_width(2),
        };
        let runs = finite_runs(&self.points, top);
        let lines = runs.iter().map(|run| PathElement::new(run.clone(), style));
        plane.draw_series(lines).map_err(drawing)?;
        // A point between two gaps is no line.
        let is_marked = |run: &&Vec<(f64, f64)>| self.style == LineStyle::Marked || run.len() == 1;
        let points = runs.iter().filter(is_marked).flatten();
        let dots = points.map(|point| Circle::new(*point, 3, colour.filled()));
        plane.draw_series(dots).map_err(drawing)?;
        Ok(())
    }
}

/// Paints one row of the legend.
fn paint_name<B: DrawingBackend>(
    area: &Area<B>,
    row: i32,
    name: &str,
    colour: RGBColor,
) -> Result<(), DrawingError> {
    let y = 24 + 18 * row;
    let sample = PathElement::new([(0, y), (14, y)], colour.stroke_width(2));
    area.draw(&sample).map_err(drawing)?;
    TextPen::new(12).write(area, (20, y - 7), &shortened(name, 15))
}

/// Runs of points without a gap; no value is above `top`.
fn finite_runs(points: &[(f64, f64)], top: f64) -> Vec<Vec<(f64, f64)>> {
    let runs = points.split(|(_, value)| !value.is_finite());
    let runs = runs.filter(|run| !run.is_empty());
    let below = |(step, value): &(f64, f64)| (*step, value.min(top));
    runs.map(|run| run.iter().map(below).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::canvas::svg;
    use super::*;

    #[test]
    fn an_average_forgets_and_skips_gaps() {
        assert_eq!(smoothed(&[4.0, 4.0, 4.0], 2.0), [4.0, 4.0, 4.0]);
        assert_eq!(smoothed(&[1.0, 5.0], 1.0), [1.0, 5.0]);
        assert_eq!(smoothed(&[4.0, f64::NAN, 4.0], 2.0), [4.0, 4.0, 4.0]);
        let step = smoothed(&[0.0, 0.0, 0.0, 1.0, 1.0], 2.0);
        assert!(
            step[3] > 0.4 && step[3] < 0.6 && step[4] > step[3],
            "{step:?}"
        );
    }

    fn chart(points: Vec<(f64, f64)>) -> LineChart {
        let curve = Curve {
            name: "masking <0.15>".to_owned(),
            points,
            style: LineStyle::Marked,
        };
        LineChart {
            title: "held-out loss".to_owned(),
            y_label: "nats".to_owned(),
            curves: vec![curve],
        }
    }

    #[test]
    fn a_first_loss_does_not_flatten_the_rest() {
        let mut points: Vec<(f64, f64)> = (1..=99)
            .map(|i| (f64::from(i), 3.0 - f64::from(i) / 100.0))
            .collect();
        points.insert(0, (0.0, 500.0));
        let Ranges {
            steps,
            values: (low, high),
            is_cut,
        } = chart(points).ranges();
        assert!(is_cut && high < 3.1 && low > 1.9, "{low} {high}");
        assert_eq!(steps, (0.0, 99.0));
        let one = chart(vec![(5.0, 2.0)]).ranges();
        assert!(!one.is_cut && one.values.0 < 2.0 && one.values.1 > 2.0);
    }

    #[test]
    fn a_chart_without_finite_values_is_empty() {
        let nothing = chart(vec![(1.0, f64::NAN)]);
        assert!(nothing.is_empty() && !chart(vec![(1.0, 2.0)]).is_empty());
        assert_eq!(nothing.ranges().values, (0.0, 1.0));
        assert!(svg(&nothing).is_ok());
    }

    #[test]
    fn gaps_are_gaps_and_names_are_written() {
        let points = vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 9.0)];
        let runs = finite_runs(&points, 5.0);
        assert_eq!(runs, [vec![(1.0, 2.0)], vec![(3.0, 1.0), (4.0, 5.0)]]);
        let grid = ChartGrid {
            heading: Heading::new("runs/nano", ""),
            charts: vec![chart(points.clone()), chart(points)],
        };
        assert_eq!(grid.size(), (1280, 460));
        let svg = svg(&grid).unwrap();
        for words in [
            "runs/nano",
            "held-out loss",
            "nats",
            "masking &lt;0.15&gt;",
            "step",
        ] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(svg.contains("#0072B2"), "{svg}");
    }
}
