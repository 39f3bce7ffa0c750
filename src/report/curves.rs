//! Curves of a run as a picture: panels side by side, each with lines over the same kind of steps.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::picture::{Area, FONT, Painting, PictureError, drawing};

/// Pixels of a panel.
const PANEL: (u32, u32) = (640, 400);
/// Pixels above the panels.
const TOP: u32 = 40;
/// Told apart by colour-blind eyes: Okabe and Ito's palette without its yellow, which is too light for lines on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// The share of values that a panel shows for certain; the few above are drawn at its top, so that a first loss does not flatten all others.
const SHOWN: f64 = 0.98;

/// Points of one line, in the order of their steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend says; empty: nothing.
    pub name: String,
    /// Step and value; values that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub look: Look,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A line.
    Line,
    /// A line with its points marked: there are few.
    Marked,
    /// A pale line in the colour of the curve behind it in the list.
    Faint,
}

/// One coordinate system.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// Its curves.
    pub curves: Vec<Curve>,
}

/// Panels, two in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// Above all.
    pub title: String,
    /// What is drawn.
    pub panels: Vec<Panel>,
}

/// The exponential moving average of `values` over about `span` of them, its beginning corrected; what is not finite does not count.
pub fn smoothed(values: &[f64], span: f64) -> Vec<f64> {
    let kept = 1.0 - 1.0 / span.max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |value: &f64| {
        if value.is_finite() {
            sum = kept * sum + value;
            weight = kept * weight + 1.0;
        }
        sum / weight
    };
    values.iter().map(average).collect()
}

impl Painting for Curves {
    fn size(&self) -> (u32, u32) {
        let rows = self.panels.len().div_ceil(2) as u32;
        (2 * PANEL.0, TOP + rows * PANEL.1)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError> {
        let style = TextStyle::from((FONT, 18).into_font()).pos(Pos::new(HPos::Left, VPos::Top));
        area.draw_text(&self.title, &style, (16, 12))
            .map_err(drawing)?;
        let (_, below) = area.split_vertically(TOP);
        let places = below.split_evenly((self.panels.len().div_ceil(2), 2));
        for (panel, place) in self.panels.iter().zip(&places) {
            paint_panel(place, panel)?;
        }
        Ok(())
    }
}

/// The ranges of both axes, and whether some values are above.
fn ranges(panel: &Panel) -> ([f64; 2], [f64; 2], bool) {
    let points = panel.curves.iter().flat_map(|curve| &curve.points);
    let points: Vec<_> = points.filter(|(_, value)| value.is_finite()).collect();
    let steps = points.iter().map(|(step, _)| *step);
    let mut values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    let (Some(&lowest), Some(&highest)) = (values.first(), values.last()) else {
        return ([0.0, 1.0], [0.0, 1.0], false);
    };
    let place = ((values.len() - 1) as f64 * SHOWN).ceil() as usize;
    let shown = values[place];
    // Cut only where it helps to see the rest.
    let cut = highest - lowest > 1.5 * (shown - lowest) && shown > lowest;
    let top = if cut { shown } else { highest };
    let margin = match 0.05 * (top - lowest) {
        0.0 => 0.05 * top.abs().max(1e-9),
        margin => margin,
    };
    let first = steps.clone().fold(f64::INFINITY, f64::min);
    let last = steps.fold(f64::NEG_INFINITY, f64::max).max(first + 1.0);
    ([first, last], [lowest - margin, top + margin], cut)
}

fn paint_panel<B: DrawingBackend>(area: &Area<B>, panel: &Panel) -> Result<(), PictureError> {
    let ([first, last], [low, high], cut) = ranges(panel);
    let title = if cut {
        format!("{} (values above {high:.3} at the top)", panel.title)
    } else {
        panel.title.clone()
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 15))
        .margin(10)
        .margin_right(24)
        .x_label_area_size(36)
        .y_label_area_size(62)
        .build_cartesian_2d(first..last, low..high)
        .map_err(drawing)?;
    let digits = ((2.0 - (high - low).log10()).ceil().max(0.0) as usize).min(8);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(6)
        .y_labels(8)
        .x_desc("step")
        .label_style((FONT, 12))
        .axis_desc_style((FONT, 12))
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| format!("{value:.digits$}"))
        .draw()
        .map_err(drawing)?;
    let mut colour = 0;
    for curve in &panel.curves {
        let shade = COLOURS[colour % COLOURS.len()];
        let style = match curve.look {
            Look::Faint => shade.mix(0.3).stroke_width(1),
            _ => shade.stroke_width(2),
        };
        let runs = finite_runs(&curve.points, high);
        let lines = runs.iter().map(|run| PathElement::new(run.clone(), style));
        let drawn = chart.draw_series(lines).map_err(drawing)?;
        if !curve.name.is_empty() {
            drawn
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        let marked = runs
            .iter()
            .filter(|run| curve.look == Look::Marked || run.len() == 1);
        let dots = marked
            .flatten()
            .map(|point| Circle::new(*point, 3, shade.filled()));
        chart.draw_series(dots).map_err(drawing)?;
        colour += usize::from(curve.look != Look::Faint);
    }
    if panel.curves.iter().any(|curve| !curve.name.is_empty()) {
        chart
            .configure_series_labels()
            .position(legend_corner(panel))
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 12))
            .draw()
            .map_err(drawing)?;
    }
    Ok(())
}

/// Where rising curves do not end.
fn legend_corner(panel: &Panel) -> SeriesLabelPosition {
    let ends = panel.curves.iter().map(|curve| {
        let mut finite = curve.points.iter().filter(|(_, value)| value.is_finite());
        let first = finite.next().map_or(0.0, |point| point.1);
        finite.next_back().map_or(first, |point| point.1) - first
    });
    if ends.sum::<f64>() > 0.0 {
        SeriesLabelPosition::LowerRight
    } else {
        SeriesLabelPosition::UpperRight
    }
}

/// Stretches of points without a gap, nothing above `top`.
fn finite_runs(points: &[(f64, f64)], top: f64) -> Vec<Vec<(f64, f64)>> {
    let runs = points.split(|(_, value)| !value.is_finite());
    let runs = runs.filter(|run| !run.is_empty());
    runs.map(|run| {
        run.iter()
            .map(|(step, value)| (*step, value.min(top)))
            .collect()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::picture::svg;
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

    fn panel(points: Vec<(f64, f64)>) -> Panel {
        let curve = Curve {
            name: "masking 0.15".to_owned(),
            points,
            look: Look::Marked,
        };
        Panel {
            title: "held-out loss".to_owned(),
            curves: vec![curve],
        }
    }

    #[test]
    fn a_first_loss_does_not_flatten_the_rest() {
        let mut points: Vec<(f64, f64)> = (1..=99)
            .map(|i| (f64::from(i), 3.0 - f64::from(i) / 100.0))
            .collect();
        points.insert(0, (0.0, 500.0));
        let ([first, last], [low, high], cut) = ranges(&panel(points));
        assert!(cut && high < 3.1 && low > 1.9, "{low} {high}");
        assert_eq!((first, last), (0.0, 99.0));
        let (_, [low, high], cut) = ranges(&panel(vec![(5.0, 2.0)]));
        assert!(!cut && low < 2.0 && high > 2.0);
        assert_eq!(ranges(&panel(vec![(1.0, f64::NAN)])).1, [0.0, 1.0]);
    }

    #[test]
    fn gaps_are_gaps_and_words_are_written() {
        let points = vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 9.0)];
        let runs = finite_runs(&points, 5.0);
        assert_eq!(runs, [vec![(1.0, 2.0)], vec![(3.0, 1.0), (4.0, 5.0)]]);
        let curves = Curves {
            title: "runs/nano".to_owned(),
            panels: vec![panel(points.clone()), panel(points)],
        };
        assert_eq!(curves.size(), (1280, 440));
        let svg = svg(&curves).unwrap();
        for words in ["runs/nano", "held-out loss", "masking 0.15", "step"] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(svg.contains("#0072B2"), "{svg}");
    }
}
