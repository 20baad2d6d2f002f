//! The source files of this crate, and what the text of one of them defines and imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub(crate) struct Source {
    /// Its path below the folder that was searched, such as `store/sql/row.rs`.
    pub(crate) file: String,
    pub(crate) text: String,
}

/// A module as the names of its path: `["store", "sql", "row"]`.
pub(crate) type ModulePath = Vec<String>;

/// The files below a folder of this repository whose names end so, in order of their paths.
pub(crate) fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                let file = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push(Source { file, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    assert!(!found.is_empty(), "there are files in {folder}");
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

impl Source {
    /// The module that the file is: `store::sql` for `store/sql/mod.rs` or `store/sql.rs`.
    pub(crate) fn module(&self) -> ModulePath {
        let path = self.file.trim_end_matches(".rs");
        path.trim_end_matches("/mod").split('/').map(str::to_owned).collect()
    }

    /// The text without comments and without its unit tests.
    pub(crate) fn code(&self) -> String {
        let tested = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let lines = self.text[..tested].lines();
        lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

/// Names that a text defines with one of these keywords, each as often as it does.
pub(crate) fn definitions(code: &str, keywords: &[&str]) -> Vec<String> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let named = words.windows(2).filter(|pair| keywords.contains(&pair[0]));
    named.map(|pair| identifier(pair[1])).filter(|name| !name.is_empty()).collect()
}

/// The identifier that a text begins with.
fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// One imported path, and whether it is a re-export (`pub use`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// The name that it has in the importing module.
    pub(crate) name: String,
    pub(crate) is_reexport: bool,
}

/// All paths that a text names: of its `use` statements, and written out in its code.
pub(crate) fn imports(code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let Some((mut tree, is_reexport)) = use_tree(line) else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        while !tree.ends_with(';') {
            tree.push_str(lines.next().unwrap().trim());
        }
        let branches = branches(tree.trim_end_matches(';'));
        found.extend(branches.iter().map(|branch| Import::new(branch, is_reexport)));
    }
    for root in ["crate::", "super::", "self::", "punctual::"] {
        let paths = rest.match_indices(root).filter(|(at, _)| {
            !rest[..*at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        });
        let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_' || *c == ':';
        let paths = paths.map(|(at, _)| rest[at..].chars().take_while(is_part).collect::<String>());
        found.extend(paths.map(|path| Import::new(path.trim_end_matches(':'), false)));
    }
    found
}

/// What follows `use` in a line that begins with it, and whether it is a re-export.
fn use_tree(line: &str) -> Option<(String, bool)> {
    let line = line.trim();
    let public = line.strip_prefix("pub").map(|rest| match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or(rest, |(_, after)| after),
        None => rest,
    });
    let tree = public.unwrap_or(line).trim_start().strip_prefix("use ")?;
    Some((tree.to_owned(), public.is_some()))
}

impl Import {
    fn new(branch: &str, is_reexport: bool) -> Self {
        let (path, alias) = branch.split_once(" as ").unwrap_or((branch, ""));
        let path: Vec<String> = path.trim().split("::").map(str::to_owned).collect();
        let last = path.last().cloned().unwrap_or_default();
        let name = if alias.is_empty() { last } else { alias.trim().to_owned() };
        Self { path, name, is_reexport }
    }
}

/// The paths of a tree of imports: `a::{b, c::{d, e}}` has `a::b`, `a::c::d` and `a::c::e`.
fn branches(tree: &str) -> Vec<String> {
    let Some((stem, list)) = tree.trim().split_once('{') else {
        return vec![tree.trim().to_owned()];
    };
    let list = list.trim().strip_suffix('}').unwrap();
    let (mut parts, mut depth) = (vec![String::new()], 0_u32);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| branches(part)).map(|branch| format!("{stem}{branch}")).collect()
}

/// Which file imports from which: modules by their paths, re-exports followed to the definition.
pub(crate) fn graph(sources: &[Source]) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let modules: BTreeMap<ModulePath, Module> =
        sources.iter().map(|source| (source.module(), Module::of(source))).collect();
    let targets = |of: &ModulePath, module: &Module| {
        let used = module.imports.iter().filter(|import| !import.is_reexport);
        let paths = used.filter_map(|import| absolute(of, &import.path, &modules));
        let found = paths.filter_map(|path| home(&path, &modules, 0));
        found.filter(|target| target != of).collect()
    };
    modules.iter().map(|(path, module)| (path.clone(), targets(path, module))).collect()
}

struct Module {
    defined: BTreeSet<String>,
    imports: Vec<Import>,
}

impl Module {
    fn of(source: &Source) -> Self {
        let code = source.code();
        let keywords = ["struct", "enum", "trait", "type", "fn", "const", "static", "macro_rules!"];
        let defined = definitions(&code, &keywords).into_iter().collect();
        Self { defined, imports: imports(&code) }
    }
}

/// The path from the root of this crate, unless it leads to another crate.
fn absolute(
    of: &ModulePath,
    path: &[String],
    modules: &BTreeMap<ModulePath, Module>,
) -> Option<ModulePath> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => Some([&of[..of.len().checked_sub(ups)?], &path[ups..]].concat()),
        "self" => Some([of.as_slice(), &path[1..]].concat()),
        first => {
            let child = [of.as_slice(), &[first.to_owned()]].concat();
            modules.contains_key(&child).then(|| [of.as_slice(), path].concat())
        }
    }
}

/// The module that defines what is at this path.
fn home(
    path: &[String],
    modules: &BTreeMap<ModulePath, Module>,
    depth: usize,
) -> Option<ModulePath> {
    let length = (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let (own, module) = modules.get_key_value(&path[..length])?;
    let Some(name) = path.get(length).filter(|name| !module.defined.contains(*name)) else {
        return Some(own.clone());
    };
    let reexports = module.imports.iter().filter(|import| import.is_reexport && depth < 8);
    let mut found = reexports.filter(|import| import.name == *name);
    let target = found.find_map(|import| absolute(own, &import.path, modules));
    target.and_then(|path| home(&path, modules, depth + 1)).or_else(|| Some(own.clone()))
}

/// Groups of files that import each other, directly or through others.
pub(crate) fn cycles(
    graph: &BTreeMap<ModulePath, BTreeSet<ModulePath>>,
) -> BTreeSet<BTreeSet<ModulePath>> {
    let reachable: BTreeMap<_, _> = graph.keys().map(|from| (from, reach(graph, from))).collect();
    let groups = graph.keys().map(|one| {
        let both = reachable[one].iter().filter(|other| reachable[*other].contains(one));
        both.cloned().collect::<BTreeSet<_>>()
    });
    groups.filter(|group| group.len() > 1).collect()
}

fn reach(
    graph: &BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    from: &ModulePath,
) -> BTreeSet<ModulePath> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(module) = open.pop() {
        for target in graph.get(&module).into_iter().flatten() {
            if seen.insert(target.clone()) {
                open.push(target.clone());
            }
        }
    }
    seen
}
