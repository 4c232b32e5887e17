//! The route table of a process: finds the route for a method and a path.

use crate::Route;
use httpcrate::Method;
use std::collections::HashMap;
use std::sync::Arc;
use types::{Error, Result};

/// What a path has: one route for each method.
type Methods<A> = HashMap<Method, Arc<Route<A>>>;

/// All routes of a listener.
pub struct Table<A> {
    routes: Vec<Arc<Route<A>>>,
    router: matchit::Router<usize>,
    entries: Vec<Methods<A>>,
}

/// A route found.
pub struct Found<A> {
    pub route: Arc<Route<A>>,
    /// Raw (not yet decoded) path parameters.
    pub args: Vec<(String, String)>,
}

/// Expands `/a/(b|c)/d` into its alternatives.
pub fn expand(path: &str) -> Vec<String> {
    let Some(open) = path.find('(') else { return vec![path.to_owned()] };
    let Some(close) = path[open..].find(')').map(|i| i + open) else { return vec![path.to_owned()] };
    let rest = expand(&path[close + 1..]);
    let alternatives = path[open + 1..close].split('|');
    alternatives.flat_map(|a| rest.iter().map(move |r| format!("{}{a}{r}", &path[..open]))).collect()
}

impl<A> Table<A> {
    /// Two routes for the same method and path are a programming error and refused.
    pub fn new(routes: Vec<Route<A>>) -> Result<Self> {
        let routes: Vec<Arc<Route<A>>> = routes.into_iter().map(Arc::new).collect();
        let mut by_path: HashMap<String, usize> = HashMap::new();
        let mut entries: Vec<Methods<A>> = Vec::new();
        let mut router = matchit::Router::new();
        for route in &routes {
            for path in expand(route.path) {
                let index = match by_path.get(&path) {
                    Some(i) => *i,
                    None => {
                        router.insert(path.clone(), entries.len())?;
                        by_path.insert(path.clone(), entries.len());
                        entries.push(HashMap::new());
                        entries.len() - 1
                    }
                };
                if entries[index].insert(route.method.clone(), route.clone()).is_some() {
                    return Err(Error::internal(format!("{} {path} is routed twice", route.method)));
                }
            }
        }
        Ok(Self { routes, router, entries })
    }

    pub fn routes(&self) -> &[Arc<Route<A>>] {
        &self.routes
    }

    /// 404 M_UNRECOGNIZED for an unknown path, 405 M_UNRECOGNIZED for a known one with another method.
    pub fn find(&self, method: &Method, path: &str) -> Result<Found<A>> {
        let found = self.router.at(path).map_err(|_| Error::unrecognized("Unrecognized request"))?;
        let methods = &self.entries[*found.value];
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let route = methods.get(method).ok_or_else(|| Error::client(405, "M_UNRECOGNIZED", "Unrecognized request"))?;
        let args = found.params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Ok(Found { route: route.clone(), args })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_expanded() {
        assert_eq!(expand("/a/(b|c)/d(|/)"), ["/a/b/d", "/a/b/d/", "/a/c/d", "/a/c/d/"]);
    }
}
