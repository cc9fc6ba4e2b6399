//! One frame of `top`.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span, Text},
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState, Wrap},
};

use super::{
    app::{App, Sort},
    view::{AgentRow, InstanceRow, StatementRow},
};
use crate::cli::format::{count, percent, rate};

/// Lines of the list of instances at most; with more it scrolls.
const MAX_INSTANCES: u16 = 8;
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);
const HEADER: Style = Style::new().add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::Red);

/// Draws `app`.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    // Header of the table, and "all" where there is more than one.
    let instances = u16::try_from(app.view().instances.len() + 2).unwrap_or(u16::MAX).min(MAX_INSTANCES + 2);
    let [head, list, table, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(instances),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, &app.view().agent, head);
    draw_instances(frame, app, list);
    let statements = app.statements();
    let selected = app.statement_index(&statements);
    match selected.filter(|_| app.detail) {
        Some(index) => {
            let [table, detail] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(table);
            draw_statements(frame, app, &statements, selected, table);
            draw_detail(frame, app, statements[index], detail);
        }
        None => draw_statements(frame, app, &statements, selected, table),
    }
    draw_foot(frame, app, statements.len(), foot);
    if app.help {
        draw_help(frame);
    }
}

fn draw_head(frame: &mut Frame<'_>, agent: &AgentRow, area: Rect) {
    let cost = Line::from(vec!["querylens  ".bold(), agent.cost().into()]);
    let losses = Line::styled(agent.losses(), if agent.losses.is_empty() { Style::new() } else { BAD });
    frame.render_widget(Paragraph::new(vec![cost, losses]), area);
}

fn right<'a>(text: String) -> Cell<'a> {
    Cell::from(Text::from(text).alignment(Alignment::Right))
}

/// The column that holds `cells`; none gets more than this of the line.
fn widest<'a>(cells: impl Iterator<Item = &'a str>) -> u16 {
    const WIDEST: usize = 32;
    let width = cells.map(|cell| Span::raw(cell).width()).max().unwrap_or(0);
    u16::try_from(width.min(WIDEST)).unwrap_or(u16::MAX)
}

fn draw_instances(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let rows = app.view().instances.iter().map(instance_row);
    let all = Row::new(vec![Cell::from(format!("all ({})", app.view().instances.len()))]);
    let widest = |of: fn(&InstanceRow) -> &str| widest(app.view().instances.iter().map(of));
    let widths = [
        Constraint::Length(widest(|row| &row.label).max(8)),
        Constraint::Length(widest(|row| &row.version).max(7)),
        Constraint::Length(widest(|row| &row.place).max(5)),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Fill(1),
    ];
    let head = Row::new(vec![
        Cell::from("INSTANCE"),
        Cell::from("VERSION"),
        Cell::from("WHERE"),
        right("SESSIONS".into()),
        right("QUERY/S".into()),
        right("ERROR/S".into()),
        right("P50".into()),
        right("P99".into()),
        Cell::from("WIRE"),
    ]);
    let table =
        Table::new(std::iter::once(all).chain(rows), widths).header(head.style(HEADER)).row_highlight_style(SELECTED);
    let mut state = TableState::default().with_selected(app.instance_index());
    frame.render_stateful_widget(table, area, &mut state);
}

fn instance_row(row: &InstanceRow) -> Row<'_> {
    let failing = row.errors.is_some_and(|errors| errors > 0.0);
    let errors = right(rate(row.errors)).style(if failing { BAD } else { Style::new() });
    let wire = Cell::from(row.wire.as_str()).style(if row.hidden { BAD } else { Style::new() });
    Row::new(vec![
        Cell::from(row.label.as_str()),
        Cell::from(row.version.as_str()),
        Cell::from(row.place.as_str()),
        right(format!("{}/{}", count(row.active), count(row.sessions))),
        right(rate(row.rate)),
        errors,
        right(row.p50.brief()),
        right(row.p99.brief()),
        wire,
    ])
}

fn draw_statements(
    frame: &mut Frame<'_>,
    app: &App,
    statements: &[&StatementRow],
    selected: Option<usize>,
    area: Rect,
) {
    let total: f64 = statements.iter().map(|row| row.total.as_secs_f64()).sum();
    let head = |name: &str, sort: Option<Sort>| {
        let sorted = sort == Some(app.sort);
        let arrow = if app.reverse { "▲" } else { "▼" };
        right(if sorted { format!("{name}{arrow}") } else { name.to_owned() })
    };
    // Which server a statement belongs to, where that is not plain.
    let labelled = app.instance().is_none() && app.view().instances.len() > 1;
    let mut header = vec![
        head("CALL/S", None),
        head("TIME", Some(Sort::TotalTime)),
        head("CALLS", Some(Sort::Calls)),
        head("ERRORS", Some(Sort::Errors)),
        head("ROWS", Some(Sort::Rows)),
        head("MEAN", Some(Sort::Mean)),
        head("P50", None),
        head("P99", Some(Sort::P99)),
    ];
    let mut widths = [8, 7, 7, 7, 7, 8, 8, 8].map(Constraint::Length).to_vec();
    if labelled {
        header.push(Cell::from("INSTANCE"));
        widths.push(Constraint::Length(widest(app.view().instances.iter().map(|row| row.label.as_str())).max(8)));
    }
    header.push(Cell::from(if app.summary { "SUMMARY" } else { "STATEMENT" }));
    widths.push(Constraint::Fill(1));
    // The table looks at each of its rows for each frame: give it no more than it can show.
    let shown = usize::from(area.height.saturating_sub(2)).max(1);
    let first = selected.map_or(0, |index| (index + 1).saturating_sub(shown));
    let rows = statements.iter().skip(first).take(shown).map(|row| {
        let share = (total > 0.0).then(|| row.total.as_secs_f64() / total);
        let errors = right(count(row.errors)).style(if row.errors > 0 { BAD } else { Style::new() });
        let mut cells = vec![
            right(rate(row.rate)),
            right(percent(share)),
            right(count(row.calls)),
            errors,
            right(count(row.rows)),
            right(row.mean.brief()),
            right(row.p50.brief()),
            right(row.p99.brief()),
        ];
        if labelled {
            cells.push(Cell::from(row.instance.as_str()));
        }
        cells.push(Cell::from(if app.summary { row.summary.as_str() } else { row.text.as_str() }));
        Row::new(cells)
    });
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(HEADER))
        .row_highlight_style(SELECTED)
        .block(Block::new().borders(Borders::TOP));
    let mut state = TableState::default().with_selected(selected.map(|index| index - first));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_detail(frame: &mut Frame<'_>, app: &App, row: &StatementRow, area: Rect) {
    let mut lines = vec![Line::from(format!(
        "{}  database {}  user {}  fingerprint {}  total {}",
        row.instance,
        row.database,
        row.user,
        row.key.fingerprint,
        row.total.brief()
    ))];
    if !row.codes.is_empty() {
        let codes: Vec<String> = row.codes.iter().map(|(code, number)| format!("{code} {}", count(*number))).collect();
        lines.push(Line::styled(format!("errors: {}", codes.join(", ")), BAD));
    }
    lines.push(Line::default());
    lines.push(Line::from(row.text.as_str()));
    let title = format!(" {} ", row.summary);
    let detail = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .scroll((app.scroll, 0))
        .block(Block::new().borders(Borders::TOP).title(title));
    frame.render_widget(detail, area);
}

fn draw_foot(frame: &mut Frame<'_>, app: &App, statements: usize, area: Rect) {
    let filter = match (app.typing, app.filter.as_str()) {
        (true, filter) => format!("/{}_", crate::model::printable(filter)),
        (false, "") => String::new(),
        (false, filter) => format!("filter \"{}\"", crate::model::printable(filter)),
    };
    let instance = app.instance().map_or("all instances", |row| row.label.as_str());
    let order = if app.reverse { "ascending" } else { "descending" };
    let plural = if statements == 1 { "" } else { "s" };
    let mut line = Vec::new();
    if app.paused {
        line.push(Span::styled("PAUSED", SELECTED));
        line.push("  ".into());
    }
    if !filter.is_empty() {
        line.push(Span::styled(filter, HEADER));
        line.push("  ".into());
    }
    line.push(format!("{statements} statement{plural} of {instance} by {}, {order}", app.sort.name()).into());
    line.push("  ? help  q quit".into());
    frame.render_widget(Line::from(line), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let mut lines = vec!["Order the statements, again to reverse:".to_owned()];
    lines.extend(Sort::ALL.iter().map(|(key, _, name)| format!("  {key}          {name}")));
    lines.extend(
        [
            "",
            "  R          reverse the order",
            "  Tab ← →    select an instance, or all",
            "  ↑ ↓        select a statement (PgUp, PgDn, Home, End)",
            "  Enter      its whole text and error codes",
            "  s          summaries instead of texts",
            "  /          filter by text, database, user (Esc clears)",
            "  Space      pause",
            "  q Ctrl-C   quit",
            "",
            "Rates are those of the last interval;",
            "everything else counts since the agent found the server.",
        ]
        .map(str::to_owned),
    );
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let width = u16::try_from(lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 4).unwrap_or(u16::MAX);
    let area = frame.area().centered(Constraint::Length(width), Constraint::Length(height));
    frame.render_widget(Clear, area);
    let text = lines.join("\n");
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" Help ")), area);
}
