//! Statements per second through the normaliser, at about 120 bytes each, and through the tokenizer of sqlparser alone for comparison.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use querylens::{model::Engine, sql::Normaliser};
use sqlparser::{
    dialect::{Dialect, MySqlDialect, PostgreSqlDialect},
    tokenizer::Tokenizer,
};

const POSTGRESQL: [&str; 6] = [
    "UPDATE pgbench_accounts SET abalance = abalance + -2345, filler = 'a filler of some length that is not read' WHERE aid = 7712345;",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (3, 1, 77, -12, CURRENT_TIMESTAMP), (4, 1, 78, 5, now())",
    "SELECT u.id, u.name, o.total FROM users AS u JOIN orders AS o ON o.user_id = u.id WHERE u.email = $1 AND o.total > $2 LIMIT 10",
    "SELECT \"users\".* FROM \"users\" WHERE \"users\".\"deleted_at\" IS NULL AND \"users\".\"email\" = 'ann@example.com' ORDER BY \"users\".\"id\"",
    "SELECT id, name, price FROM products WHERE category_id IN (1, 2, 3, 4, 5, 6, 7, 8) AND data ->> 'colour' = 'red' ORDER BY price",
    "DELETE FROM sessions WHERE last_seen < now() - interval '30 days' AND user_id = 918273 AND token = 'b1946ac92492d2347c6235b4d2611184'",
];
const MYSQL: [&str; 6] = [
    "UPDATE sbtest1 SET c='08566691963-88624912351-16662227201-46648573979-64646226163-77505759394', k=k+1 WHERE id=5020",
    "INSERT INTO sbtest1 (id, k, c, pad) VALUES (5024, 4980, '68487932199-96439406143-93774651418', '67847967377-48000963322-62604785301')",
    "SELECT u.id, u.name, o.total FROM users AS u JOIN orders AS o ON o.user_id = u.id WHERE u.email = ? AND o.total > ? LIMIT 10",
    "SELECT `users`.* FROM `users` WHERE `users`.`deleted_at` IS NULL AND `users`.`email` = 'ann@example.com' ORDER BY `users`.`id`",
    "SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN 5012 AND 5111 AND k IN (1, 2, 3, 4, 5, 6, 7, 8) AND pad <> \"none\" ORDER BY c DESC",
    "DELETE FROM sessions WHERE last_seen < NOW() - INTERVAL 30 DAY AND user_id = 918273 AND token = 'b1946ac92492d2347c6235b4d2611184'",
];

fn normalise(criterion: &mut Criterion) {
    let dialects: [(Engine, [&str; 6], &dyn Dialect); 2] =
        [(Engine::Postgresql, POSTGRESQL, &PostgreSqlDialect {}), (Engine::Mysql, MYSQL, &MySqlDialect {})];
    for (engine, statements, dialect) in dialects {
        let mean = statements.iter().map(|text| text.len()).sum::<usize>() / statements.len();
        assert!((110..=130).contains(&mean), "{engine}: {mean} bytes");
        let mut group = criterion.benchmark_group(engine.name());
        group.throughput(Throughput::Elements(statements.len() as u64));
        group.bench_function("digest", |bencher| {
            let mut normaliser = Normaliser::default();
            bencher.iter(|| {
                for text in statements {
                    black_box(normaliser.digest(engine, black_box(text.as_bytes()), false));
                }
            });
        });
        group.bench_function("sqlparser tokens only", |bencher| {
            let mut tokens = Vec::new();
            bencher.iter(|| {
                for text in statements {
                    tokens.clear();
                    Tokenizer::new(dialect, black_box(text)).tokenize_with_location_into_buf(&mut tokens).unwrap();
                    black_box(&tokens);
                }
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = sql;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = normalise
}
criterion_main!(sql);
