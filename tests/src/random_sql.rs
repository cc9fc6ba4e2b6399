//! Random statements on the tables of pg_querylens/tests/setup.sql.
//!
//! Each gives the same rows whenever and by whatever plan it is executed, apart from their order: what is not determined (LIMIT without a total order,
//! ranks of equals, sums of floats, overflows that depend on what is evaluated first) is not generated.

use fastrand::Rng;

/// A column that an expression may name.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
}

/// Tables: name, key, greatest key, the other columns of numbers, those of text.
type Table = (&'static str, &'static str, i32, &'static [&'static str], &'static [&'static str]);
const TABLES: [Table; 5] = [
    ("a", "id", 10_000, &["x", "y"], &["s"]),
    ("b", "id", 20_000, &["a_id", "z"], &[]),
    ("c", "id", 5_000, &["b_id", "w"], &[]),
    ("small", "id", 20, &["n"], &[]),
    ("part", "k", 4_000, &["v"], &[]),
];
/// Rows that a table in a join has at most, about: joins of joins stay small.
const SHARE: i32 = 150;
/// Deepest nesting of queries.
const DEPTH: u32 = 2;

/// Makes statements; the same ones for the same seed.
#[derive(Debug)]
pub struct Generator {
    random: Rng,
    names: u32,
    /// MERGE is there.
    merge: bool,
}

impl Generator {
    /// For a major version of PostgreSQL.
    pub fn new(seed: u64, major: u32) -> Generator {
        Generator { random: Rng::with_seed(seed), names: 0, merge: major >= 15 }
    }

    /// Statements of one transaction, which is to be rolled back.
    pub fn transaction(&mut self) -> Vec<String> {
        match self.random.u32(0..12) {
            0..5 => vec![self.query(DEPTH, None).0],
            5 => {
                let query = self.query(DEPTH, None).0;
                vec![
                    format!("PREPARE p AS {query}"),
                    "EXECUTE p".to_owned(),
                    "EXECUTE p".to_owned(),
                    "DEALLOCATE p".to_owned(),
                ]
            }
            6 => {
                let query = self.query(DEPTH, None).0;
                let fetch = "FETCH ALL FROM q".to_owned();
                vec![
                    format!("DECLARE q SCROLL CURSOR FOR {query}"),
                    fetch,
                    "MOVE BACKWARD ALL IN q".to_owned(),
                    "CLOSE q".to_owned(),
                ]
            }
            7 => {
                let (query, columns) = self.query(DEPTH, None);
                let names = (0..columns.len()).map(|n| format!("n{n}")).collect::<Vec<_>>().join(", ");
                vec![format!("CREATE TEMP TABLE made ({names}) AS {query}"), "SELECT count(*) FROM made".to_owned()]
            }
            8 => {
                // An error that is caught, and one statement after it.
                let (first, second) = (self.query(1, None).0, self.query(1, None).0);
                let text = "DECLARE r record; BEGIN BEGIN FOR r IN {first} LOOP PERFORM 1 / (random() < 0)::integer; END LOOP; \
                            EXCEPTION WHEN division_by_zero THEN NULL; END; FOR r IN {second} LOOP NULL; END LOOP; END";
                vec![format!("DO $do$ {} $do$", text.replace("{first}", &first).replace("{second}", &second))]
            }
            9 => vec![self.failure()],
            _ => {
                let change = self.change();
                let query = self.query(1, None).0;
                vec![
                    "SAVEPOINT s".to_owned(),
                    change,
                    query,
                    "ROLLBACK TO s".to_owned(),
                    "SELECT count(*) FROM small".to_owned(),
                ]
            }
        }
    }

    fn failure(&mut self) -> String {
        let table = self.table();
        let failures = [
            "SELECT 1 / (id - id) FROM a".to_owned(),
            "INSERT INTO small SELECT 1, 1".to_owned(),
            "SELECT s::integer FROM a WHERE id < 5".to_owned(),
            format!("SELECT nothing FROM {}", table.0),
            "INSERT INTO part VALUES (1000000, 1)".to_owned(),
            "SELECT (SELECT id FROM small)".to_owned(),
        ];
        self.random.choice(failures).unwrap_or_default()
    }

    fn change(&mut self) -> String {
        let table = self.table();
        let (name, key, greatest, numbers, _) = table;
        let scope = scope(name, Some(&table));
        let from = self.random.i32(0..greatest);
        let within = format!("{name}.{key} BETWEEN {from} AND {}", from + SHARE);
        let condition = self.condition(1, &scope);
        let column = self.random.choice(numbers).copied().unwrap_or(key);
        match self.random.u32(0..if self.merge { 4 } else { 3 }) {
            0 => {
                let value = self.number(1, &scope);
                format!("UPDATE {name} SET {column} = {value} WHERE {within} AND {condition} RETURNING {key}, {column}")
            }
            1 => format!("DELETE FROM {name} WHERE {within} AND {condition} RETURNING {key}"),
            2 => {
                let (query, _) = self.query(1, Some(&[Kind::Number, Kind::Number]));
                format!("INSERT INTO c (b_id, w) {query} RETURNING b_id, w")
            }
            _ => {
                let (query, _) = self.query(1, Some(&[Kind::Number]));
                format!(
                    "MERGE INTO small USING (SELECT DISTINCT q.k FROM ({query}) q (k)) s ON small.id = s.k \
                     WHEN MATCHED AND s.k % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = s.k"
                )
            }
        }
    }

    /// A query, and the kinds of its columns: those that are asked for, or any.
    fn query(&mut self, depth: u32, wanted: Option<&[Kind]>) -> (String, Vec<Kind>) {
        let kinds: Vec<Kind> = match wanted {
            Some(kinds) => kinds.to_vec(),
            None => (0..self.random.usize(1..4))
                .map(|_| if self.random.u32(0..4) == 0 { Kind::Text } else { Kind::Number })
                .collect(),
        };
        if depth > 0 && self.random.u32(0..8) == 0 {
            let (left, right) = (self.query(depth - 1, Some(&kinds)).0, self.query(depth - 1, Some(&kinds)).0);
            let operation = self.one_of(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]);
            return (format!("({left}) {operation} ({right})"), kinds);
        }
        (self.select(depth, &kinds), kinds)
    }

    fn select(&mut self, depth: u32, kinds: &[Kind]) -> String {
        let (with, from, scope) = self.from(depth);
        let filter =
            if self.random.bool() { format!(" WHERE {}", self.condition(depth, &scope)) } else { String::new() };
        let body = match self.random.u32(0..6) {
            0 => {
                // No literal: that would be the position of a column.
                let by = self.column(Kind::Number, &scope).unwrap_or_else(|| "()".to_owned());
                let items: Vec<String> = kinds.iter().map(|kind| self.aggregate(*kind, &scope)).collect();
                let having = if self.random.bool() { " HAVING count(*) > 1" } else { "" };
                format!("SELECT {} FROM {from}{filter} GROUP BY {by}{having}", items.join(", "))
            }
            1 => {
                let items: Vec<String> = kinds.iter().map(|kind| self.window(*kind, &scope)).collect();
                format!("SELECT {} FROM {from}{filter}", items.join(", "))
            }
            number => {
                let items: Vec<String> = kinds.iter().map(|kind| self.expression(*kind, depth, &scope)).collect();
                let distinct = if number == 2 { "DISTINCT " } else { "" };
                format!("SELECT {distinct}{} FROM {from}{filter}", items.join(", "))
            }
        };
        let order = match self.random.u32(0..3) {
            0 => {
                // By all columns: what a limit leaves is then determined.
                let columns: Vec<String> = (1..=kinds.len()).map(|n| n.to_string()).collect();
                format!(" ORDER BY {} LIMIT {}", columns.join(", "), self.random.u32(0..30))
            }
            _ => String::new(),
        };
        format!("{with}{body}{order}")
    }

    /// WITH, what stands behind FROM, and the columns that it has.
    fn from(&mut self, depth: u32) -> (String, String, Vec<Column>) {
        let sources = if self.random.bool() { 1 } else { self.random.usize(2..4) };
        let mut with = String::new();
        let mut from = String::new();
        let mut all: Vec<Column> = Vec::new();
        for number in 0..sources {
            let name = self.name();
            let (source, columns) = self.source(depth, sources > 1, &name, &mut with);
            if number == 0 {
                from = source;
            } else {
                let numbers =
                    |columns: &[Column]| columns.iter().filter(|c| c.kind == Kind::Number).cloned().collect::<Vec<_>>();
                let (left, right) = (self.random.choice(numbers(&all)), self.random.choice(numbers(&columns)));
                let on = match (left, right) {
                    (Some(left), Some(right)) => format!("{} = {}", left.name, right.name),
                    _ => "false".to_owned(),
                };
                let join = self.one_of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
                from = format!("{from} {join} {source} ON {on}");
            }
            all.extend(columns);
        }
        (with, from, all)
    }

    fn source(&mut self, depth: u32, joined: bool, name: &str, with: &mut String) -> (String, Vec<Column>) {
        if depth > 0 && self.random.u32(0..4) == 0 {
            let (query, kinds) = self.query(depth - 1, None);
            let columns = |prefix: &str| (0..kinds.len()).map(|n| format!("{prefix}n{n}")).collect::<Vec<_>>();
            let scope =
                columns(&format!("{name}.")).into_iter().zip(&kinds).map(|(name, kind)| Column { name, kind: *kind });
            let scope = scope.collect();
            let list = columns("").join(", ");
            if self.random.bool() || !with.is_empty() {
                return (format!("({query}) {name} ({list})"), scope);
            }
            let kept = self.one_of(&["", "MATERIALIZED ", "NOT MATERIALIZED "]);
            *with = format!("WITH {name} ({list}) AS {kept}({query}) ");
            return (name.to_owned(), scope);
        }
        if self.random.u32(0..10) == 0 {
            let count = self.random.u32(1..100);
            return (
                format!("generate_series(1, {count}) {name} (g)"),
                vec![Column { name: format!("{name}.g"), kind: Kind::Number }],
            );
        }
        let table = self.table();
        let source = if joined {
            let from = self.random.i32(0..table.2);
            format!("(SELECT * FROM {} WHERE {} BETWEEN {from} AND {}) {name}", table.0, table.1, from + SHARE)
        } else {
            format!("{} {name}", table.0)
        };
        (source, scope(name, Some(&table)))
    }

    fn expression(&mut self, kind: Kind, depth: u32, scope: &[Column]) -> String {
        if kind == Kind::Number { self.number(depth, scope) } else { self.text(depth, scope) }
    }

    fn number(&mut self, depth: u32, scope: &[Column]) -> String {
        match self.random.u32(0..if depth == 0 { 4 } else { 10 }) {
            0 => self.random.i32(-5..10_000).to_string(),
            1..4 => self.column(Kind::Number, scope).unwrap_or_else(|| "7".to_owned()),
            4 => format!("({} + {})", self.number(depth - 1, scope), self.number(depth - 1, scope)),
            5 => format!("({} - {})", self.number(depth - 1, scope), self.number(depth - 1, scope)),
            6 => format!("({} % nullif({}, 0))", self.number(depth - 1, scope), self.number(0, scope)),
            7 => format!("coalesce({}, {})", self.number(depth - 1, scope), self.number(depth - 1, scope)),
            8 => {
                let (condition, yes) = (self.condition(depth - 1, scope), self.number(depth - 1, scope));
                format!("CASE WHEN {condition} THEN {yes} ELSE {} END", self.number(depth - 1, scope))
            }
            _ => {
                // Of a table with an index on its key: it is run for each row.
                let name = self.one_of(&["a", "b", "small"]);
                let (inner, outer) = (self.name(), self.number(0, scope));
                format!("(SELECT max({inner}.id) FROM {name} {inner} WHERE {inner}.id <= {outer})")
            }
        }
    }

    fn text(&mut self, depth: u32, scope: &[Column]) -> String {
        match self.random.u32(0..if depth == 0 { 3 } else { 7 }) {
            0 => format!("'{}'", self.random.alphanumeric()),
            1 | 2 => self.column(Kind::Text, scope).unwrap_or_else(|| format!("{}::text", self.number(0, scope))),
            3 => format!("upper({})", self.text(depth - 1, scope)),
            4 => format!("({} || {})", self.text(depth - 1, scope), self.text(0, scope)),
            5 => format!("substr({}, 1, {})", self.text(depth - 1, scope), self.random.u32(0..5)),
            _ => format!("md5({})", self.text(depth - 1, scope)),
        }
    }

    fn condition(&mut self, depth: u32, scope: &[Column]) -> String {
        match self.random.u32(0..if depth == 0 { 5 } else { 9 }) {
            0 | 1 => {
                let (left, operator) = (self.number(0, scope), self.one_of(&["=", "<>", "<", "<=", ">", ">="]));
                format!("{left} {operator} {}", self.number(0, scope))
            }
            2 => format!("{} LIKE '%{}%'", self.text(0, scope), self.random.u32(0..10)),
            3 => format!("{} IS NOT NULL", self.number(0, scope)),
            4 => {
                let list: Vec<String> =
                    (0..self.random.u32(1..6)).map(|_| self.random.u32(0..100).to_string()).collect();
                format!("{} IN ({})", self.number(0, scope), list.join(", "))
            }
            5 => format!("({} AND {})", self.condition(depth - 1, scope), self.condition(depth - 1, scope)),
            6 => format!("({} OR NOT {})", self.condition(depth - 1, scope), self.condition(depth - 1, scope)),
            7 => {
                let (query, _) = self.query(depth - 1, Some(&[Kind::Number]));
                format!("{} IN ({query})", self.number(0, scope))
            }
            _ => {
                let (name, key, ..) = self.table();
                let (inner, outer) = (self.name(), self.number(0, scope));
                format!("EXISTS (SELECT FROM {name} {inner} WHERE {inner}.{key} = {outer})")
            }
        }
    }

    fn aggregate(&mut self, kind: Kind, scope: &[Column]) -> String {
        let number = self.number(0, scope);
        match (kind, self.random.u32(0..4)) {
            (Kind::Text, 0) => format!("max({})", self.text(0, scope)),
            (Kind::Text, _) => format!("string_agg({number}::text, ',' ORDER BY {number})"),
            (Kind::Number, 0) => "count(*)".to_owned(),
            (Kind::Number, 1) => format!("count(DISTINCT {number})"),
            (Kind::Number, 2) => format!("min({number})"),
            (Kind::Number, _) => format!("sum({number}) FILTER (WHERE {})", self.condition(0, scope)),
        }
    }

    fn window(&mut self, kind: Kind, scope: &[Column]) -> String {
        let (number, by) = (self.number(0, scope), self.number(0, scope));
        match (kind, self.random.bool()) {
            (Kind::Text, _) => format!("min({}) OVER (PARTITION BY {by})", self.text(0, scope)),
            (Kind::Number, true) => format!("rank() OVER (PARTITION BY {by} ORDER BY {number})"),
            (Kind::Number, false) => format!("sum({number}) OVER (PARTITION BY {by})"),
        }
    }

    fn column(&mut self, kind: Kind, scope: &[Column]) -> Option<String> {
        let fitting: Vec<&Column> = scope.iter().filter(|column| column.kind == kind).collect();
        self.random.choice(fitting).map(|column| column.name.clone())
    }

    fn table(&mut self) -> Table {
        TABLES[self.random.usize(0..TABLES.len())]
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("q{}", self.names)
    }

    fn one_of(&mut self, choices: &[&'static str]) -> &'static str {
        self.random.choice(choices).copied().unwrap_or_default()
    }
}

/// Columns of a table under a name.
fn scope(name: &str, table: Option<&Table>) -> Vec<Column> {
    let Some((_, key, _, numbers, texts)) = table else { return Vec::new() };
    let column = |kind| move |column: &&str| Column { name: format!("{name}.{column}"), kind };
    let numbers = std::iter::once(key).chain(numbers.iter()).map(column(Kind::Number));
    numbers.chain(texts.iter().map(column(Kind::Text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_statements() {
        let many = |seed| {
            let mut generator = Generator::new(seed, 17);
            (0..200).flat_map(|_| generator.transaction()).collect::<Vec<_>>()
        };
        assert_eq!(many(1), many(1));
        assert_ne!(many(1), many(2));
        let all = many(1).join("\n");
        for part in
            ["JOIN", "GROUP BY", "OVER", "WITH", "UNION", "EXISTS", "UPDATE", "DELETE", "MERGE", "DECLARE", "PREPARE"]
        {
            assert!(all.contains(part), "{part}");
        }
        assert!(!Generator::new(1, 14).merge);
    }
}
