//! `db.query.summary`, `db.operation.name` and `db.collection.name` from the normalised tokens.
//!
//! Source: OpenTelemetry semantic conventions 1.44, "Generating a summary of the query": operations and their targets in the order in which
//! they appear, names as they are written, at most 255 characters, cut between names.

use smallvec::SmallVec;

use super::{
    keywords::Kw,
    normalise::{Part, Token},
};

/// Bound on a summary in bytes.
const MAX_SUMMARY: usize = 255;
/// How many common table expressions of a statement are told from tables.
const MAX_CTES: usize = 16;

/// What the tokens of a statement say about it. Reused for its buffers.
#[derive(Default)]
pub(super) struct Summary {
    /// Operations and targets.
    pub(super) text: String,
    operation: Option<String>,
    collection: Collection,
    full: bool,
}

#[derive(Default)]
enum Collection {
    #[default]
    None,
    One(String),
    Many,
}

/// What is known between two parentheses.
#[derive(Clone, Copy, Default)]
struct Scope {
    /// The operation that owns the clauses here.
    operation: Kw,
    /// A comma is followed by another table.
    tables: bool,
    /// The next name is a table.
    table_next: bool,
    /// Between WITH and the statement it belongs to.
    with: bool,
    /// The statement names no tables by the rules of queries: GRANT SELECT ON ...
    opaque: bool,
}

impl Summary {
    pub(super) fn operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// The name of the collection, if there is exactly one.
    pub(super) fn collection(&self) -> Option<&str> {
        match &self.collection {
            Collection::One(name) => Some(name),
            Collection::None | Collection::Many => None,
        }
    }

    fn add(&mut self, piece: &str) {
        let blank = usize::from(!self.text.is_empty());
        self.full |= self.text.len() + blank + piece.len() > MAX_SUMMARY;
        if !self.full {
            if blank == 1 {
                self.text.push(' ');
            }
            self.text.push_str(piece);
        }
    }

    fn add_operation(&mut self, operation: &str, of_statement: bool) {
        if of_statement && self.operation.is_none() {
            self.operation = Some(operation.to_owned());
        }
        self.add(operation);
    }

    fn add_collection(&mut self, name: &str) {
        self.collection = match std::mem::take(&mut self.collection) {
            Collection::None => Collection::One(name.to_owned()),
            Collection::One(one) if one == name => Collection::One(one),
            Collection::One(_) | Collection::Many => Collection::Many,
        };
        self.add(name);
    }

    /// Reads `tokens` of `text`.
    pub(super) fn run(&mut self, text: &str, tokens: &[Token]) {
        self.text.clear();
        self.operation = None;
        self.collection = Collection::None;
        self.full = false;
        let mut walk = Walk {
            out: self,
            text,
            tokens,
            at: 0,
            scope: Scope::default(),
            outer: SmallVec::new(),
            ctes: SmallVec::new(),
        };
        walk.all();
        drop(walk);
        if self.operation.is_none() {
            // WITH alone, because the rest was cut: the first operation stands for all.
            self.operation = self.text.split(' ').next().filter(|first| !first.is_empty()).map(str::to_owned);
        }
    }
}

struct Walk<'a> {
    out: &'a mut Summary,
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    scope: Scope,
    outer: SmallVec<[Scope; 8]>,
    ctes: SmallVec<[&'a str; 4]>,
}

impl<'a> Walk<'a> {
    fn all(&mut self) {
        while let Some(token) = self.tokens.get(self.at).copied() {
            match token.part {
                Part::OpenParen => {
                    // A parenthesis in place of a table holds tables or a query.
                    let tables = std::mem::take(&mut self.scope.table_next);
                    self.outer.push(self.scope);
                    self.scope = Scope { tables, table_next: tables, opaque: self.scope.opaque, ..Scope::default() };
                }
                Part::CloseParen => self.scope = self.outer.pop().unwrap_or(self.scope),
                Part::Comma => self.scope.table_next = self.scope.tables,
                Part::Semicolon if self.outer.is_empty() => self.scope = Scope::default(),
                Part::Word => {
                    self.word(token);
                    continue;
                }
                _ => self.scope.table_next = false,
            }
            self.at += 1;
        }
    }

    fn slice(&self, token: Token) -> &'a str {
        self.text.get(token.start as usize..token.end as usize).unwrap_or_default()
    }

    fn kw(&self, at: usize) -> Kw {
        self.tokens.get(at).map_or(Kw::None, |token| token.kw)
    }

    fn part(&self, at: usize) -> Option<Part> {
        self.tokens.get(at).map(|token| token.part)
    }

    /// Index after the name that begins at `at`: words joined by dots.
    fn name_end(&self, at: usize) -> usize {
        let mut end = at + 1;
        while self.part(end) == Some(Part::Dot) && self.part(end + 1) == Some(Part::Word) {
            end += 2;
        }
        end
    }

    /// Whether a statement may begin here.
    fn statement_begins(&self) -> bool {
        let Some(before) = self.at.checked_sub(1) else { return true };
        match self.tokens[before].part {
            Part::Semicolon | Part::OpenParen => true,
            Part::CloseParen => self.scope.with || self.scope.operation == Kw::Explain,
            Part::Word => match self.tokens[before].kw {
                Kw::Explain | Kw::Analyze | Kw::Verbose | Kw::As | Kw::Begin | Kw::Else => true,
                // Not the actions of MERGE, whose target is known.
                Kw::Then => self.scope.operation != Kw::Merge,
                _ => false,
            },
            _ => false,
        }
    }

    fn first_in_statement(&self) -> bool {
        self.at == 0 || self.tokens[self.at - 1].part == Part::Semicolon
    }

    /// Reads a word, and moves on past it and what it explains.
    fn word(&mut self, token: Token) {
        if self.scope.table_next && !token.reserved && token.kw != Kw::Into {
            return self.table(token);
        }
        if self.scope.with && self.is_cte() && self.ctes.len() < MAX_CTES {
            self.ctes.push(self.slice(token));
        }
        let followed_by_paren = self.part(self.at + 1) == Some(Part::OpenParen);
        match token.kw {
            Kw::Select if !self.scope.opaque => self.query(token),
            Kw::Values if self.first_in_statement() => self.query(token),
            Kw::Insert | Kw::Replace if self.statement_begins() && !followed_by_paren => {
                self.query(token);
                self.scope.table_next = true;
            }
            Kw::Update if self.statement_begins() => {
                self.query(token);
                (self.scope.tables, self.scope.table_next) = (true, true);
            }
            Kw::Delete | Kw::Merge if self.statement_begins() => self.query(token),
            Kw::With if self.statement_begins() => self.scope.with = true,
            Kw::Into
                if matches!(self.scope.operation, Kw::Insert | Kw::Replace | Kw::Merge | Kw::Select | Kw::Load) =>
            {
                self.scope.table_next = true;
            }
            // `IS DISTINCT FROM` is an operator.
            Kw::From
                if matches!(self.scope.operation, Kw::Select | Kw::Delete)
                    && self.kw(self.at.wrapping_sub(1)) != Kw::Distinct =>
            {
                (self.scope.tables, self.scope.table_next) = (true, true);
            }
            Kw::From if self.scope.operation == Kw::Update => {
                (self.scope.tables, self.scope.table_next) = (true, true);
            }
            Kw::Using if matches!(self.scope.operation, Kw::Delete | Kw::Merge) && !followed_by_paren => {
                (self.scope.tables, self.scope.table_next) = (true, true);
            }
            Kw::Join => self.scope.table_next = true,
            Kw::Modifier | Kw::Table if self.scope.table_next => {}
            _ if self.first_in_statement() => return self.head(token),
            Kw::TailClause | Kw::Limit | Kw::Set | Kw::With => {
                (self.scope.tables, self.scope.table_next) = (false, false)
            }
            _ => self.scope.table_next = false,
        }
        self.at += 1;
    }

    /// An operation whose tables follow by the rules of queries.
    fn query(&mut self, token: Token) {
        let of_statement = self.outer.is_empty();
        self.scope = Scope { operation: token.kw, ..Scope::default() };
        self.out.add_operation(&self.slice(token).to_ascii_uppercase(), of_statement);
    }

    /// Whether a common table expression is named here: `name AS (` or `name (columns) AS (` after WITH, RECURSIVE or a comma.
    fn is_cte(&self) -> bool {
        let before = self.at.wrapping_sub(1);
        (matches!(self.kw(before), Kw::With | Kw::Recursive) || self.part(before) == Some(Part::Comma))
            && (self.kw(self.at + 1) == Kw::As || self.part(self.at + 1) == Some(Part::OpenParen))
    }

    /// A word where a table is expected.
    fn table(&mut self, token: Token) {
        if matches!(token.kw, Kw::Modifier | Kw::Table) && self.part(self.at + 1) != Some(Part::Dot) {
            let named_by_it = !matches!(self.part(self.at + 1), Some(Part::Word | Part::OpenParen));
            if !named_by_it {
                self.at += 1;
                return;
            }
        }
        let end = self.name_end(self.at);
        // The columns of INSERT INTO t (...) and COPY t (...) are no arguments of a function.
        let function = self.part(end) == Some(Part::OpenParen)
            && !matches!(
                self.scope.operation,
                Kw::Insert | Kw::Replace | Kw::Merge | Kw::Copy | Kw::Create | Kw::Vacuum
            );
        let name = self.text.get(token.start as usize..self.tokens[end - 1].end as usize).unwrap_or_default();
        if !function && !self.ctes.contains(&name) && !name.contains('?') {
            self.out.add_collection(name);
        }
        self.scope.table_next = false;
        self.at = end;
    }

    /// The first word of a statement that is no query.
    fn head(&mut self, token: Token) {
        self.at += 1;
        self.scope.operation = token.kw;
        let mut operation = self.slice(token).to_ascii_uppercase();
        match token.kw {
            Kw::Create | Kw::Alter | Kw::Drop | Kw::Refresh => {
                self.scope.operation = Kw::Create;
                return self.definition(operation, token.kw);
            }
            Kw::Start if self.kw(self.at) == Kw::Transaction => {
                operation.push_str(" TRANSACTION");
                self.at += 1;
            }
            Kw::Truncate | Kw::Lock => (self.scope.tables, self.scope.table_next) = (true, true),
            Kw::Analyze | Kw::Vacuum => {
                self.scope.operation = Kw::Vacuum;
                while matches!(self.kw(self.at), Kw::Verbose | Kw::Analyze | Kw::Modifier) {
                    self.at += 1;
                }
                if self.part(self.at) == Some(Part::OpenParen) && token.kw == Kw::Vacuum {
                    while !matches!(self.part(self.at), None | Some(Part::CloseParen)) {
                        self.at += 1;
                    }
                    self.at += 1;
                }
                (self.scope.tables, self.scope.table_next) = (true, true);
            }
            Kw::Copy => self.scope.table_next = true,
            Kw::Table => {
                self.scope.operation = Kw::Select;
                self.scope.table_next = true;
            }
            Kw::Call => {
                self.out.add_operation(&operation, true);
                if self.part(self.at) == Some(Part::Word) {
                    let (start, end) = (self.tokens[self.at].start, self.name_end(self.at));
                    let name = self.text.get(start as usize..self.tokens[end - 1].end as usize).unwrap_or_default();
                    self.out.add(name);
                    self.at = end;
                }
                return;
            }
            Kw::Explain | Kw::Load | Kw::Prepare => {}
            Kw::Head | Kw::Set | Kw::Begin => self.scope.opaque = true,
            // No statement of these engines begins so.
            _ => {
                self.scope.opaque = true;
                return;
            }
        }
        self.out.add_operation(&operation, true);
    }

    /// CREATE, ALTER, DROP and REFRESH: the kind of object belongs to the operation. Tables and views are named, and the table of an index.
    fn definition(&mut self, mut operation: String, verb: Kw) {
        const SEARCH: usize = 12;
        let found = (self.at..self.tokens.len().min(self.at + SEARCH))
            .find(|at| matches!(self.kw(*at), Kw::Table | Kw::View | Kw::Index | Kw::Object));
        if let Some(at) = found {
            let kw = self.kw(at);
            if kw == Kw::View && self.kw(at - 1) == Kw::Materialized {
                operation.push_str(" MATERIALIZED");
            }
            operation.push(' ');
            operation.push_str(&self.slice(self.tokens[at]).to_ascii_uppercase());
            self.at = at + 1;
            match kw {
                Kw::Index if verb == Kw::Create => {
                    let on = (self.at..self.tokens.len().min(self.at + SEARCH)).find(|at| self.kw(*at) == Kw::On);
                    self.at = on.map_or(self.at, |on| on + 1);
                    self.scope.table_next = on.is_some();
                }
                Kw::Table | Kw::View => {
                    self.scope.table_next = true;
                    self.scope.tables = verb == Kw::Drop;
                }
                _ => self.scope.opaque = kw == Kw::Object,
            }
        }
        self.out.add_operation(&operation, true);
        // `IF NOT EXISTS name`: reserved words where a name is expected.
        while self.scope.table_next && matches!(self.kw(self.at), Kw::Modifier | Kw::Not) {
            self.at += 1;
        }
    }
}
