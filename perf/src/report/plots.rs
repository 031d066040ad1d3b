//! Plots of a report as SVG: throughput against number of services, ratios with their intervals, latencies by rarity, and
//! bars of CPU time and of programs' costs.
//!
//! Ink is the colour of the page's text, and nothing is painted behind it: a page may be light or dark. Legends are the
//! page's affair.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{RGBColor, text_anchor};
use serde_json::Value;

use super::Report;
use super::section::{self, Section, of_target};
use super::summary;
use crate::results::{Outcome, Unit};

const SIZE: (u32, u32) = (560, 320);
/// The height of a bar's row.
const ROW: i32 = 20;

/// Colours that most people tell from each other (Okabe and Ito), for lanes without one of their own.
const COLOURS: [RGBColor; 6] = [
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
];
const GREY: RGBColor = RGBColor(128, 128, 128);

/// The colour of a lane: of known ones always the same, of others by `index`.
fn colour(lane: &str, index: usize) -> RGBColor {
    match lane {
        "beeline" => RGBColor(230, 159, 0),
        "beeline-xdp" => RGBColor(213, 94, 0),
        "iptables" => RGBColor(0, 114, 178),
        "nftables" => RGBColor(0, 158, 115),
        "conntrack" => RGBColor(204, 121, 167),
        "haproxy" => RGBColor(86, 180, 233),
        "none" | "direct" => GREY,
        _ => COLOURS[index % COLOURS.len()],
    }
}

/// A drawing, with what its colours mean.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) svg: String,
    /// Name and colour as the web writes it; empty where names stand in the drawing.
    pub(super) legend: Vec<(String, String)>,
}

/// A line.
struct Series {
    name: String,
    lane: String,
    points: Vec<(f64, f64)>,
    /// It has a value at every place.
    level: bool,
}

/// A bar, with its interval if it has one.
struct Bar {
    name: String,
    lane: String,
    value: f64,
    interval: Option<[f64; 2]>,
    text: String,
}

/// The plots of one question: the first shows the result.
pub(super) fn of_section(section: &Section<'_>) -> Result<Vec<Plot>> {
    let mut drawn = Vec::new();
    match scale(section, section.outcomes.iter().copied()) {
        Some(series) => drawn.push(
            Axes {
                title: format!("rate against number of services, {} = 1", section.reference()),
                x: "services",
                y: "rate / reference's rate",
                powers: true,
                log_y: false,
                level: Some(1.0),
            }
            .draw(&series)?,
        ),
        None => drawn.extend(bars("rate / reference's rate, 95 % intervals", &ratios(section), Some(1.0))?),
    }
    let series = latencies(section);
    if !series.is_empty() {
        let axes = Axes {
            title: "latency: so many of 100 are below".to_owned(),
            x: "percentile",
            y: "µs",
            powers: false,
            log_y: true,
            level: None,
        };
        drawn.push(axes.draw(&series)?);
    }
    for (at, title) in
        [("/cpu_us", "CPU time of the client, µs an operation"), ("/packet_ns", "CPU time, ns a packet")]
    {
        drawn.extend(bars(title, &cpu(section, at), None)?);
    }
    Ok(drawn)
}

/// The plots of a group's results that are no ratios.
pub(super) fn of_group(report: &Report, group: &str) -> Result<Vec<Plot>> {
    let outcomes: Vec<_> = report
        .outcomes
        .iter()
        .filter(|outcome| outcome.group == group && outcome.skipped.is_none() && outcome.unit != Unit::Ratio)
        .collect();
    let mut tests: Vec<&str> = Vec::new();
    for outcome in &outcomes {
        if !tests.contains(&outcome.test.as_str()) {
            tests.push(&outcome.test);
        }
    }
    let mut drawn = Vec::new();
    for test in tests {
        let of_test = outcomes.iter().copied().filter(|outcome| outcome.test == test);
        let times = of_test.filter(|outcome| matches!(outcome.unit, Unit::Seconds | Unit::Microseconds));
        let unit = times.clone().next().map_or("", |outcome| outcome.unit.as_str());
        if let Some(series) = lines(times) {
            let axes = Axes {
                title: format!("{test}, {unit}, against number of services"),
                x: "services",
                y: unit,
                powers: true,
                log_y: true,
                level: None,
            };
            drawn.push(axes.draw(&series)?);
        }
    }
    let bar = |outcome: &&Outcome| {
        let mark = if outcome.published.is_some() { " †" } else { "" };
        let value = outcome.estimate.value;
        Bar {
            name: format!("{} - {}{mark}", outcome.test, outcome.lane),
            lane: outcome.lane.clone(),
            value,
            interval: Some(outcome.estimate.interval).filter(|[low, high]| low < high),
            text: short(value),
        }
    };
    for (unit, title) in [(Unit::Nanoseconds, "nanoseconds a run"), (Unit::Rate, "a second")] {
        let mut of_unit: Vec<_> = outcomes.iter().copied().filter(|outcome| outcome.unit == unit).collect();
        // What is compared stands together.
        of_unit.sort_by_key(|outcome| outcomes.iter().position(|other| other.test == outcome.test));
        drawn.extend(bars(title, &of_unit.iter().map(bar).collect::<Vec<_>>(), None)?);
    }
    Ok(drawn)
}

/// Values by number of services, lane by lane; none if no lane has two numbers.
fn lines<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<Vec<Series>> {
    let mut series: Vec<Series> = Vec::new();
    for outcome in outcomes.filter(|outcome| outcome.skipped.is_none()) {
        let Some(services) = outcome.services else { continue };
        let point = ((services.max(1) as f64).log10(), outcome.estimate.value);
        match series.iter_mut().find(|known| known.name == outcome.lane) {
            Some(known) => known.points.push(point),
            None => series.push(Series {
                name: outcome.lane.clone(),
                lane: outcome.lane.clone(),
                points: vec![point],
                level: false,
            }),
        }
    }
    series.iter().any(|known| known.points.len() > 1).then_some(series)
}

/// The same for ratios: lanes without services are levels.
fn scale<'a>(section: &Section<'_>, outcomes: impl Iterator<Item = &'a Outcome>) -> Option<Vec<Series>> {
    let mut series = lines(outcomes)?;
    let xs: Vec<f64> = series.iter().flat_map(|known| known.points.iter().map(|(x, _)| *x)).collect();
    let (left, right) = range(xs.into_iter());
    let without =
        section.outcomes.iter().filter(|outcome| outcome.services.is_none() && outcome.skipped.is_none());
    series.extend(without.map(|outcome| {
        let value = outcome.estimate.value;
        let (name, lane) = (outcome.lane.clone(), outcome.lane.clone());
        Series { name, lane, points: vec![(left, value), (right, value)], level: true }
    }));
    Some(series)
}

fn ratios(section: &Section<'_>) -> Vec<Bar> {
    let measured = section.outcomes.iter().filter(|outcome| outcome.skipped.is_none());
    measured
        .map(|outcome| Bar {
            name: section::lane(outcome),
            lane: outcome.lane.clone(),
            value: outcome.estimate.value,
            interval: Some(outcome.estimate.interval),
            text: format!("{:.3}", outcome.estimate.value),
        })
        .collect()
}

/// Latency by rarity of each lane with its most services, and of the reference: 1 is 90 %, 2 is 99 %, 3 is 99.9 %.
fn latencies(section: &Section<'_>) -> Vec<Series> {
    let curve = |side: &Value| -> Vec<(f64, f64)> {
        let points = side.pointer("/latency/curve").and_then(Value::as_array).into_iter().flatten();
        points
            .filter_map(|point| Some((point.get(0)?.as_f64()?, point.get(1)?.as_f64()?)))
            .filter(|(quantile, us)| *quantile < 1.0 && *us > 0.0)
            .map(|(quantile, us)| (-(1.0 - quantile).log10(), us))
            .collect()
    };
    let shown = summary::most(section, |_| true);
    let mut series: Vec<_> = shown
        .iter()
        .map(|outcome| Series {
            name: section::lane(outcome),
            lane: outcome.lane.clone(),
            points: curve(&outcome.detail["target"]),
            level: false,
        })
        .collect();
    series.extend(shown.first().map(|outcome| Series {
        name: section.reference().to_owned(),
        lane: section.reference().to_owned(),
        points: curve(&outcome.detail["reference"]),
        level: false,
    }));
    series.retain(|known| known.points.len() > 1);
    series
}

fn cpu(section: &Section<'_>, at: &str) -> Vec<Bar> {
    let bar = |name: String, lane: &str, value: f64| Bar {
        name,
        lane: lane.to_owned(),
        value,
        interval: None,
        text: short(value),
    };
    let reference = section.reference();
    let first = section.of_reference(at).map(|value| bar(reference.to_owned(), reference, value));
    let measured = section
        .outcomes
        .iter()
        .filter_map(|outcome| Some(bar(section::lane(outcome), &outcome.lane, of_target(outcome, at)?)));
    let bars: Vec<_> = measured.collect();
    // A reference alone says nothing.
    if bars.is_empty() { bars } else { first.into_iter().chain(bars).collect() }
}

struct Axes {
    title: String,
    x: &'static str,
    y: &'static str,
    /// The x axis holds powers of ten of services; else rarities.
    powers: bool,
    log_y: bool,
    /// A line to compare with.
    level: Option<f64>,
}

/// The least and the greatest.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws, and leaves ink to the page.
fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    // The backend writes a size; a page scales by the box that it writes, too.
    Ok(text.replace("#000000", "currentColor"))
}

impl Axes {
    fn draw(&self, series: &[Series]) -> Result<Plot> {
        let legend = series
            .iter()
            .enumerate()
            .map(|(index, known)| {
                let RGBColor(red, green, blue) = colour(&known.lane, index);
                (known.name.clone(), format!("#{red:02x}{green:02x}{blue:02x}"))
            })
            .collect();
        Ok(Plot { title: self.title.clone(), svg: svg(SIZE, |area| self.on(area, series))?, legend })
    }

    /// A logarithmic axis is a linear one of logarithms: its labels are powers.
    fn on_y(&self, value: f64) -> f64 {
        if self.log_y { value.max(1e-9).log10() } else { value }
    }

    fn x_label(&self, x: f64) -> String {
        if self.powers {
            let services = 10_f64.powf(x);
            return if x.fract().abs() < 0.01 { format!("{services:.0}") } else { String::new() };
        }
        format!("{}", ((1.0 - 10_f64.powf(-x)) * 1e5).round() / 1e3)
    }

    fn on(&self, area: &Area<'_>, series: &[Series]) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
        let points = || series.iter().flat_map(|known| known.points.iter().copied());
        let (left, right) = range(points().map(|(x, _)| x));
        let (low, high) = range(points().map(|(_, y)| self.on_y(y)).chain(self.level));
        let bottom = if self.log_y { low - 0.1 } else { 0.0 };
        let top = (high + (high - bottom) * 0.08).max(bottom + 0.1);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            // The last label is centred below its place.
            .margin_right(28)
            .x_label_area_size(38)
            .y_label_area_size(58)
            .build_cartesian_2d(left..right.max(left + 0.1), bottom..top)
            .map_err(|error| failed(&error))?;
        let x_label = |x: &f64| self.x_label(*x);
        let y_label = |y: &f64| if self.log_y { short(10_f64.powf(*y)) } else { format!("{y:.2}") };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GREY.mix(0.35))
            .axis_style(GREY)
            .x_labels(if self.powers { (right - left).round() as usize + 1 } else { 6 })
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style(("sans-serif", 13).into_font().color(&BLACK))
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .draw()
            .map_err(|error| failed(&error))?;
        if let Some(level) = self.level {
            let line = LineSeries::new([(left, level), (right, level)], GREY.stroke_width(1));
            chart.draw_series(line).map_err(|error| failed(&error))?;
        }
        for (index, known) in series.iter().enumerate() {
            let colour = colour(&known.lane, index);
            let points = known.points.iter().map(|(x, y)| (*x, self.on_y(*y)));
            if known.level {
                let dashes = DashedLineSeries::new(points, 6, 5, colour.stroke_width(2));
                chart.draw_series(dashes).map_err(|error| failed(&error))?;
                continue;
            }
            let line = LineSeries::new(points.clone(), colour.stroke_width(2));
            chart.draw_series(line).map_err(|error| failed(&error))?;
            let dots = points.map(|point| Circle::new(point, 3, colour.filled()));
            chart.draw_series(dots).map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

/// A number with two or three digits that count, and a prefix of SI where it is large or small.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1} M", v / 1e6),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v if v >= 0.1 || v <= 0.0 => format!("{v:.2}"),
        v if v >= 1e-3 => format!("{:.1} m", v * 1e3),
        v => format!("{:.1} \u{b5}", v * 1e6),
    }
}

fn bars(title: &str, bars: &[Bar], level: Option<f64>) -> Result<Option<Plot>> {
    if bars.is_empty() {
        return Ok(None);
    }
    let longest = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or_default() as i32;
    let (label, room) = (16 + longest * 7, 340);
    // An interval that leaves the drawing is cut: it is in the table.
    let most = bars.iter().map(|bar| bar.value).chain(level).fold(1e-9, f64::max) * 1.1;
    let at = |value: f64| label + (f64::from(room) * (value / most).clamp(0.0, 1.0)) as i32;
    let size = (label + room + 70, 12 + ROW * bars.len() as i32);
    let drawn = svg((size.0 as u32, size.1 as u32), |area| {
        let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
        let say = |text: &str, place: (i32, i32), side: text_anchor::HPos| {
            let style = ("sans-serif", 13).into_font().color(&BLACK);
            let style = style.pos(text_anchor::Pos::new(side, text_anchor::VPos::Center));
            area.draw(&Text::new(text.to_owned(), place, style)).map_err(|error| failed(&error))
        };
        for (index, bar) in bars.iter().enumerate() {
            let y = 6 + ROW / 2 + ROW * index as i32;
            say(&bar.name, (label - 8, y), text_anchor::HPos::Right)?;
            let end = at(bar.value).max(label + 1);
            let shape = Rectangle::new([(label, y - 6), (end, y + 6)], colour(&bar.lane, index).filled());
            area.draw(&shape).map_err(|error| failed(&error))?;
            let mut right = end;
            if let Some([low, high]) = bar.interval {
                right = right.max(at(high));
                let whisker = PathElement::new([(at(low), y), (at(high), y)], BLACK.stroke_width(2));
                area.draw(&whisker).map_err(|error| failed(&error))?;
            }
            say(&bar.text, (right + 6, y), text_anchor::HPos::Left)?;
        }
        if let Some(level) = level {
            let line = PathElement::new([(at(level), 2), (at(level), size.1 - 2)], GREY.stroke_width(1));
            area.draw(&line).map_err(|error| failed(&error))?;
        }
        Ok(())
    })?;
    Ok(Some(Plot { title: title.to_owned(), svg: drawn, legend: Vec::new() }))
}
