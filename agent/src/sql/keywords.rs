//! The words that mean something to the normaliser or the summary.
//!
//! The lists are frozen here, and not taken from a parser library or a server, because fingerprints depend on them: a word added or
//! removed changes the fingerprint of every statement that holds it.

use std::sync::LazyLock;

use crate::model::Engine;

/// Words that a rule asks for by name. All others are [`Kw::None`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kw {
    #[default]
    None,
    All,
    Alter,
    Analyze,
    Array,
    As,
    Begin,
    Call,
    Charset,
    Copy,
    Create,
    Delete,
    Distinct,
    Drop,
    Else,
    Explain,
    Extract,
    False,
    From,
    /// Any other word that a statement begins with.
    Head,
    In,
    Index,
    Insert,
    Into,
    Is,
    Join,
    Limit,
    Load,
    Lock,
    Materialized,
    Merge,
    /// A word that may stand between a clause's keyword and the name of its table.
    Modifier,
    Not,
    /// A form of Unicode normalisation.
    NormalForm,
    Null,
    /// What CREATE, ALTER and DROP act on, other than tables, views and indexes.
    Object,
    On,
    Prepare,
    Recursive,
    Refresh,
    Replace,
    Row,
    Select,
    Set,
    Start,
    Table,
    /// Ends the list of tables of a statement.
    TailClause,
    Then,
    Transaction,
    True,
    Truncate,
    Unknown,
    Update,
    Using,
    Vacuum,
    Values,
    Verbose,
    View,
    With,
}

const POSTGRES_RESERVED: u16 = 1;
const MYSQL_WORD: u16 = 1 << 1;
const MYSQL_RESERVED: u16 = 1 << 2;
const POSTGRES_OPERAND: u16 = 1 << 3;
const MYSQL_OPERAND: u16 = 1 << 4;
const SPACED: u16 = 1 << 5;
const INTRODUCER: u16 = 1 << 6;
const SYNONYM: u16 = 1 << 7;
const POSTGRES_QUOTED: u16 = 1 << 8;

/// PostgreSQL 18: words that cannot name a column without quotes (`pg_get_keywords()`, categories R and T).
const POSTGRES_RESERVED_WORDS: &str = "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint \
    create current_catalog current_date current_role current_time current_timestamp current_user default deferrable desc distinct do \
    else end except false fetch for foreign from grant group having in initially intersect into lateral leading limit localtime \
    localtimestamp not null offset on only or order placing primary references returning select session_user some symmetric \
    system_user table then to trailing true union unique user using variadic when where window with \
    authorization binary collation concurrently cross current_schema freeze full ilike inner is isnull join left like natural notnull \
    outer overlaps right similar tablesample verbose";

/// PostgreSQL 18: words that can, but mean something else before a parenthesis (category C).
const POSTGRES_COLUMN_WORDS: &str = "between bigint bit boolean char character coalesce dec decimal exists extract float greatest grouping inout int integer interval \
    least merge_action national nchar none normalize nullif numeric out overlay position precision real row setof smallint substring time \
    timestamp treat trim values varchar xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot \
    xmlserialize xmltable json json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize \
    json_table json_value";

/// MySQL 9 and MariaDB 11: words that cannot be an identifier without quotes in at least one of them.
const MYSQL_RESERVED_WORDS: &str = "accessible add all alter analyze and as asc asensitive before between bigint binary blob both by \
    call cascade case change char character check collate column condition constraint continue convert create cross cube cume_dist \
    current_date current_role current_time current_timestamp current_user cursor database databases day_hour day_microsecond day_minute \
    day_second dec decimal declare default delayed delete delete_domain_id dense_rank desc describe deterministic distinct distinctrow div \
    do_domain_ids double drop dual each else elseif empty enclosed escaped except exists exit explain false fetch first_value float float4 \
    float8 for force foreign from fulltext function generated get grant group grouping groups having high_priority hour_microsecond \
    hour_minute hour_second if ignore ignore_domain_ids ignore_server_ids in index infile inner inout insensitive insert int int1 int2 \
    int3 int4 int8 integer intersect interval into io_after_gtids io_before_gtids is iterate join json_table key keys kill lag last_value \
    lateral lead leading leave left library like limit linear lines load localtime localtimestamp lock long longblob longtext loop \
    low_priority manual master_bind master_heartbeat_period master_ssl_verify_server_cert match maxvalue mediumblob mediumint mediumtext \
    middleint minute_microsecond minute_second mod modifies natural not no_write_to_binlog nth_value ntile null numeric of offset on optimize \
    optimizer_costs option optionally or order out outer outfile over page_checksum parallel parse_vcol_expr partition percent_rank \
    precision primary procedure purge qualify range rank read reads read_write real recursive references ref_system_id regexp release \
    rename repeat replace require resignal restrict return returning revoke right rlike row rows row_number schema schemas \
    second_microsecond select sensitive separator set show signal smallint spatial specific sql sqlexception sqlstate sqlwarning \
    sql_big_result sql_calc_found_rows sql_small_result ssl starting stats_auto_recalc stats_persistent stats_sample_pages stored \
    straight_join system table tablesample terminated then tinyblob tinyint tinytext to trailing trigger true undo union unique unlock \
    unsigned update usage use using utc_date utc_time utc_timestamp values varbinary varchar varcharacter varying virtual when where while \
    window with write xor year_month zerofill";

/// MySQL 9 and MariaDB 11: words that the servers' lexers know as keywords and that may yet be identifiers. Their digests print them in
/// upper case and without quotes, whatever they stand for.
const MYSQL_WORDS: &str = "account action active adddate admin after against aggregate algorithm always any array ascii at atomic attribute \
    authentication author authors auto autoextend_size auto_increment avg avg_row_length backup begin bernoulli binlog bit bit_and bit_or \
    bit_xor block body bool boolean btree buckets bulk byte cache cascaded cast catalog_name chain challenge_response changed channel \
    charset checkpoint checksum cipher class_origin client clob clone close coalesce code collation column_add column_check column_create \
    column_delete column_format column_get column_name columns comment commit committed compact completion component compressed \
    compression concurrent connection consistent constraint_catalog constraint_name constraint_schema contains context contributors \
    count cpu curdate current current_pos cursor_name curtime cycle data datafile date date_add date_sub datetime day deallocate default_auth \
    definer definition delay_key_write description des_key_file diagnostics directory disable discard disk do duality dumpfile duplicate \
    dynamic elsif enable encryption end ends enforced engine engine_attribute engines enum error errors escape event events every examined \
    exception exchange exclude execute expansion expire export extended extent_size extract factor failed_login_attempts fast faults \
    federated fields file file_block_size filter finish first fixed flush followed following follows format found full general generate \
    geomcollection geometry geometrycollection get_format get_master_public_key get_source_public_key global goto grants group_concat \
    group_replication gtid_only handler hard hash help histogram history host hosts hour id identified ignored immediate import inactive \
    increment indexes initial initial_size initiate insert_method install instance int_to_num intersect invisible invoker io io_thread ipc \
    isolation isopen issuer json json_arrayagg json_objectagg json_value keyring key_block_size language last lastval leaves left less level \
    linestring list local locked locks log logfile logs master master_auto_position master_compression_algorithms master_connect_retry \
    master_delay master_demote_to_replica master_demote_to_slave master_gtid_pos master_host master_log_file master_log_pos master_password \
    master_port master_public_key_path master_retry_count master_server_id master_ssl master_ssl_ca master_ssl_capath master_ssl_cert \
    master_ssl_cipher master_ssl_crl master_ssl_crlpath master_ssl_key master_tls_ciphersuites master_tls_version master_use_gtid \
    master_user master_zstd_compression_level max max_connections_per_hour max_queries_per_hour max_rows max_size max_statement_time \
    max_updates_per_hour max_user_connections medium member memory merge message_text microsecond mid migrate min minus minute minvalue \
    min_rows mode modify monitor month multilinestring multipoint multipolygon mutex mysql mysql_errno name names national nchar ndb \
    ndbcluster nested nesting network_namespace never new next nextval no nocache nocycle nodegroup nomaxvalue nominvalue none notfound now \
    nowait no_wait nulls number nvarchar off oj old old_password one online only open optional options ordinality organization others \
    overlaps owner pack_keys package page parser parse_tree partial partitioning partitions password password_lock_time path period persist \
    persistent persist_only phase plugin plugins plugin_dir point polygon port portion position precedes preceding prepare preserve prev \
    previous privileges privilege_checks_user process processlist profile profiles proxy quarter query quick raise random raw read_only \
    rebuild recover redofile redo_buffer_size redundant reference registration relay relaylog relay_log_file relay_log_pos relay_thread \
    reload remove reorganize repair repeatable replay replica replicas replica_pos replicate_do_db replicate_do_table replicate_ignore_db \
    replicate_ignore_table replicate_rewrite_db replicate_wild_do_table replicate_wild_ignore_table replication require_row_format reset \
    resource resources respect restart restore resume retain returned_sqlstate returns reuse reverse role rollback rollup rotate routine \
    rowcount rownum rowtype row_count row_format rtree s3 savepoint schedule schema_name secondary secondary_engine \
    secondary_engine_attribute secondary_load secondary_unload second security separator sequence serial serializable server session \
    session_user setval share shutdown signed simple skip slave slaves slave_pos slow snapshot socket soft some soname sounds source \
    source_auto_position source_bind source_connect_retry source_delay source_host source_log_file source_log_pos source_password \
    source_port source_public_key_path source_ssl source_user source_zstd_compression_level sql_after_gtids sql_after_mts_gaps \
    sql_before_gtids sql_buffer_result sql_cache sql_no_cache sql_thread sql_tsi_day sql_tsi_hour sql_tsi_minute sql_tsi_month \
    sql_tsi_quarter sql_tsi_second sql_tsi_week sql_tsi_year srid stacked stage start starts statement std stddev stddev_pop stddev_samp \
    st_collect status stop storage stream string subclass_origin subdate subject subpartition subpartitions substr substring sum super \
    suspend swaps switches sysdate system_time system_user tables tablespace table_checksum table_name temporary temptable text than \
    thread_priority threads ties time timestamp timestampadd timestampdiff tls to_vector transaction transactional triggers trim truncate \
    type types unbounded uncommitted undefined undofile undo_buffer_size unicode uninstall unknown unregister until upgrade url user \
    user_resources use_frm validation value variables variance varchar2 var_pop var_samp vcpu vector versioning via view visible wait \
    warnings week weight_string without work wrapper x509 xa xid xml year zone";

/// MySQL and MariaDB: words that are one token to the server's lexer, so that its digest prints one for the other.
const MYSQL_SYNONYMS: &str = "character=char curdate=current_date current_timestamp=now curtime=current_time dec=decimal describe=explain \
    distinctrow=distinct fields=columns float4=float float8=double int1=tinyint int2=smallint int3=mediumint int4=int int8=bigint \
    integer=int localtime=now localtimestamp=now mid=substring middleint=mediumint ndb=ndbcluster relay_thread=io_thread \
    replica=slave replica_pos=slave_pos replicas=slaves resources=user_resources rlike=regexp schema=database schemas=databases session_user=user \
    some=any sql_tsi_day=day sql_tsi_hour=hour sql_tsi_minute=minute sql_tsi_month=month sql_tsi_quarter=quarter sql_tsi_second=second \
    sql_tsi_week=week sql_tsi_year=year std=stddev stddev_pop=stddev substr=substring system_user=user varcharacter=varchar \
    var_pop=variance";

/// Character sets that may introduce a literal: `_utf8mb4'...'`.
const INTRODUCERS: &str = "_armscii8 _ascii _big5 _binary _cp1250 _cp1251 _cp1256 _cp1257 _cp850 _cp852 _cp866 _cp932 _dec8 _eucjpms \
    _euckr _gb18030 _gb2312 _gbk _geostd8 _greek _hebrew _hp8 _keybcs2 _koi8r _koi8u _latin1 _latin2 _latin5 _latin7 _macce _macroman \
    _sjis _swe7 _tis620 _ucs2 _ujis _utf16 _utf16le _utf32 _utf8 _utf8mb3 _utf8mb4";

/// Words after which an operand follows, in both dialects: a sign there is a part of the number, TRUE and NULL are values.
const OPERAND_WORDS: &str = "all and between by case default distinct do else escape for from having in like limit not offset on or return \
    returning select then to when where";
const POSTGRES_OPERAND_WORDS: &str = "ilike symmetric variadic";
const MYSQL_OPERAND_WORDS: &str =
    "binary div distinctrow elseif if interval mod regexp rlike separator straight_join until using while xor";

/// Words that keep a blank before an opening parenthesis, beside those above. Taste only: it has no bearing on what is told apart.
const SPACED_WORDS: &str = "as check conflict except exists filter group in intersect into is join key lateral materialized over \
    partition references table union unique using value values with";

const NAMED: &[(&str, Kw)] = &[
    ("_charset", Kw::Charset),
    ("all", Kw::All),
    ("alter", Kw::Alter),
    ("analyse", Kw::Analyze),
    ("analyze", Kw::Analyze),
    ("array", Kw::Array),
    ("as", Kw::As),
    ("begin", Kw::Begin),
    ("call", Kw::Call),
    ("copy", Kw::Copy),
    ("create", Kw::Create),
    ("delete", Kw::Delete),
    ("desc", Kw::Explain),
    ("describe", Kw::Explain),
    ("distinct", Kw::Distinct),
    ("drop", Kw::Drop),
    ("else", Kw::Else),
    ("explain", Kw::Explain),
    ("extract", Kw::Extract),
    ("false", Kw::False),
    ("from", Kw::From),
    ("in", Kw::In),
    ("index", Kw::Index),
    ("insert", Kw::Insert),
    ("into", Kw::Into),
    ("is", Kw::Is),
    ("join", Kw::Join),
    ("limit", Kw::Limit),
    ("load", Kw::Load),
    ("lock", Kw::Lock),
    ("materialized", Kw::Materialized),
    ("merge", Kw::Merge),
    ("nfc", Kw::NormalForm),
    ("nfd", Kw::NormalForm),
    ("nfkc", Kw::NormalForm),
    ("nfkd", Kw::NormalForm),
    ("not", Kw::Not),
    ("null", Kw::Null),
    ("on", Kw::On),
    ("prepare", Kw::Prepare),
    ("recursive", Kw::Recursive),
    ("refresh", Kw::Refresh),
    ("replace", Kw::Replace),
    ("row", Kw::Row),
    ("select", Kw::Select),
    ("set", Kw::Set),
    ("start", Kw::Start),
    ("straight_join", Kw::Join),
    ("table", Kw::Table),
    ("tables", Kw::Table),
    ("then", Kw::Then),
    ("transaction", Kw::Transaction),
    ("true", Kw::True),
    ("truncate", Kw::Truncate),
    ("unknown", Kw::Unknown),
    ("update", Kw::Update),
    ("using", Kw::Using),
    ("vacuum", Kw::Vacuum),
    ("values", Kw::Values),
    ("verbose", Kw::Verbose),
    ("view", Kw::View),
    ("with", Kw::With),
];
const HEADS: &str = "abort binlog cache change checkpoint checksum close cluster comment commit deallocate declare discard do end execute \
    fetch flush grant handler help import install kill listen move notify optimize purge reassign reindex release rename repair reset \
    resignal revoke rollback savepoint security show shutdown signal stop uninstall unlisten unlock use xa";
const OBJECTS: &str = "aggregate cast collation constraint conversion database domain event extension function language operator package \
    policy procedure publication role rule schema sequence server statistics subscription tablespace transform trigger type user";
const MODIFIERS: &str =
    "concurrently delayed exists freeze full high_priority if ignore lateral low_priority only quick";
const TAIL_CLAUSES: &str = "except for group having intersect order returning union where window";

/// A word of the lists above.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyword {
    pub(super) word: &'static str,
    /// Index of the word that stands for it in a digest of MySQL: itself, but for synonyms.
    canonical: u16,
    pub(super) kw: Kw,
    flags: u16,
}

impl Keyword {
    /// Whether the engine's lexer treats it as a keyword in MySQL's sense: its case says nothing.
    pub(super) fn folds(&self) -> bool {
        self.flags & MYSQL_WORD != 0
    }

    /// Whether an identifier of this spelling needs its quotes, to `engine` or to this normaliser.
    pub(super) fn needs_quotes(&self, engine: Engine) -> bool {
        match engine {
            Engine::Postgresql => {
                self.flags & (POSTGRES_RESERVED | POSTGRES_QUOTED | POSTGRES_OPERAND) != 0 || self.kw == Kw::NormalForm
            }
            Engine::Mysql | Engine::Mariadb => {
                self.flags & (MYSQL_RESERVED | MYSQL_OPERAND | INTRODUCER | SYNONYM) != 0
                    || matches!(self.kw, Kw::Charset | Kw::Unknown)
            }
        }
    }

    /// Whether `engine` reserves it: it is no name.
    pub(super) fn reserved(&self, engine: Engine) -> bool {
        let flag = if engine == Engine::Postgresql { POSTGRES_RESERVED } else { MYSQL_RESERVED };
        self.flags & flag != 0
    }

    /// Whether an operand follows.
    pub(super) fn operand_follows(&self, engine: Engine) -> bool {
        let flag = if engine == Engine::Postgresql { POSTGRES_OPERAND } else { MYSQL_OPERAND };
        self.flags & flag != 0
    }

    /// Whether a blank stands between it and an opening parenthesis.
    pub(super) fn spaced(&self) -> bool {
        self.flags & SPACED != 0
    }

    /// Whether it is a character set that may introduce a literal.
    pub(super) fn introducer(&self) -> bool {
        self.flags & INTRODUCER != 0
    }
}

/// All keywords, found by the lower-case word.
pub(super) struct Keywords {
    /// Open addressing: index into `words` plus one, or zero.
    slots: Box<[u16; Keywords::SLOTS]>,
    padded: Vec<Padded>,
    words: Vec<Keyword>,
}

/// A word in lower case, followed by zeros: hashed and compared without looking for its end.
type Padded = [u8; Keywords::PADDED];

impl Keywords {
    const SLOTS: usize = 4096;
    /// More than the length of the longest word in the lists, and a multiple of 8.
    const PADDED: usize = 32;

    /// The table, built once.
    pub(super) fn get() -> &'static Keywords {
        static TABLE: LazyLock<Keywords> = LazyLock::new(Keywords::build);
        &TABLE
    }

    fn build() -> Keywords {
        let mut table =
            Keywords { slots: Box::new([0; Keywords::SLOTS]), padded: Vec::new(), words: Vec::with_capacity(1024) };
        let lists = [
            (POSTGRES_RESERVED_WORDS, POSTGRES_RESERVED),
            (POSTGRES_COLUMN_WORDS, POSTGRES_QUOTED),
            (MYSQL_RESERVED_WORDS, MYSQL_RESERVED | MYSQL_WORD),
            (MYSQL_WORDS, MYSQL_WORD),
            (INTRODUCERS, INTRODUCER | MYSQL_WORD),
            (OPERAND_WORDS, POSTGRES_OPERAND | MYSQL_OPERAND | SPACED),
            (POSTGRES_OPERAND_WORDS, POSTGRES_OPERAND | SPACED),
            (MYSQL_OPERAND_WORDS, MYSQL_OPERAND),
            (SPACED_WORDS, SPACED),
        ];
        for (words, flags) in lists {
            words.split_whitespace().for_each(|word| table.entry(word).flags |= flags);
        }
        for pair in MYSQL_SYNONYMS.split_whitespace() {
            if let Some((word, canonical)) = pair.split_once('=') {
                // What stands for another word must not become it by losing its quotes either.
                table.entry(canonical).flags |= MYSQL_WORD;
                let canonical = table.index(canonical) as u16;
                let entry = table.entry(word);
                entry.canonical = canonical;
                entry.flags |= SYNONYM | MYSQL_WORD;
            }
        }
        for (words, kw) in
            [(HEADS, Kw::Head), (OBJECTS, Kw::Object), (MODIFIERS, Kw::Modifier), (TAIL_CLAUSES, Kw::TailClause)]
        {
            words.split_whitespace().for_each(|word| table.entry(word).kw = kw);
        }
        NAMED.iter().for_each(|(word, kw)| table.entry(word).kw = *kw);
        table
    }

    #[inline]
    fn pad(word: &[u8]) -> Option<Padded> {
        let mut padded = [0; Keywords::PADDED];
        padded.get_mut(..word.len())?.copy_from_slice(word);
        padded.make_ascii_lowercase();
        Some(padded)
    }

    /// Multiplicative hashing (Knuth, The Art of Computer Programming 3, §6.4): the highest bits of a sum of products with odd numbers.
    fn slot(word: &Padded) -> usize {
        const FACTORS: [u64; Keywords::PADDED / 8] =
            [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];
        let (eights, _) = word.as_chunks();
        let products =
            eights.iter().zip(FACTORS).map(|(eight, factor)| u64::from_le_bytes(*eight).wrapping_mul(factor));
        let hash = products.fold(0u64, u64::wrapping_add);
        (hash >> (u64::BITS - Keywords::SLOTS.ilog2())) as usize
    }

    /// Where `word` is, or the empty slot where it would be.
    #[inline]
    fn lookup(&self, word: &Padded) -> Result<usize, usize> {
        let mut slot = Keywords::slot(word);
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                index if self.padded[index as usize - 1] == *word => return Ok(index as usize - 1),
                _ => slot = (slot + 1) % Keywords::SLOTS,
            }
        }
    }

    /// Index of `word`, which is in the table from now on. The lists have none that is longer than [`Keywords::PADDED`].
    fn index(&mut self, word: &'static str) -> usize {
        let padded = Keywords::pad(word.as_bytes()).unwrap_or_default();
        self.lookup(&padded).unwrap_or_else(|slot| {
            let index = self.words.len();
            self.words.push(Keyword { word, canonical: index as u16, kw: Kw::None, flags: 0 });
            self.padded.push(padded);
            self.slots[slot] = self.words.len() as u16;
            index
        })
    }

    fn entry(&mut self, word: &'static str) -> &mut Keyword {
        let index = self.index(word);
        &mut self.words[index]
    }

    /// The keyword spelt `word`, in whatever case.
    pub(super) fn find(&self, word: &[u8]) -> Option<&Keyword> {
        let index = self.lookup(&Keywords::pad(word)?).ok()?;
        self.words.get(index)
    }

    /// The word that is printed in place of `keyword`: mostly itself.
    pub(super) fn canonical<'a>(&'a self, keyword: &'a Keyword) -> &'a Keyword {
        self.words.get(keyword.canonical as usize).unwrap_or(keyword)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_holds_every_word() {
        let table = Keywords::get();
        assert!(table.words.len() * 3 < Keywords::SLOTS, "{} words crowd the table", table.words.len());
        for keyword in &table.words {
            assert_eq!(table.find(keyword.word.as_bytes()).unwrap().word, keyword.word);
            assert!(keyword.word.len() < Keywords::PADDED, "{}", keyword.word);
            let canonical = table.canonical(keyword);
            assert_eq!(table.canonical(canonical).word, canonical.word);
        }
        assert!(table.find(b"pgbench_accounts").is_none());
    }
}
