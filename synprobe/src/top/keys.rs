//! Keys → changes of the screen, and requests to whoever feeds it.

use ipnet::IpNet;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    App,
    app::{OpenPage, PageKind, Typing},
    item::{PaneItem, RowId},
    pane::Pane,
    query::RowQuery,
};
use crate::{model::Role, view::remedy::steps};

/// Rows of PgUp and PgDn.
const MANY: isize = 10;
/// Lines of a page beyond its last one cannot be reached: the screen holds this back.
const FAR: isize = isize::MAX / 2;
/// What `[` and `]` skip, microseconds.
const SKIPPED_US: i64 = 10_000_000;

/// What a key asks of whoever feeds the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRequest {
    /// Nothing.
    Nothing,
    /// The end.
    Quit,
    /// The whole screen again: something else has written on it.
    Redraw,
    /// This text into the clipboard of whoever looks at the terminal.
    Copy(String),
    /// A recording of what comes begins, or the one that is being written ends.
    Record,
    /// A replay stops, or goes on.
    Pause(bool),
    /// A replay goes that far on, microseconds; negative: back. The ends stop it.
    Skip(i64),
}

impl App {
    /// Takes in a key.
    pub fn key(&mut self, key: KeyEvent) -> KeyRequest {
        if key.kind == KeyEventKind::Release {
            return KeyRequest::Nothing;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if with_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return KeyRequest::Quit;
        }
        if with_control && key.code == KeyCode::Char('l') {
            return KeyRequest::Redraw;
        }
        if key.modifiers.contains(KeyModifiers::ALT) {
            // Esc and a key that came together.
            let _ = self.key(KeyCode::Esc.into());
        }
        self.notice = None;
        self.part_is_news = false;
        if self.typing.is_some() {
            self.type_key(key.code);
            return KeyRequest::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return KeyRequest::Quit,
            KeyCode::Char(' ') => {
                self.is_paused = !self.is_paused;
                return KeyRequest::Pause(self.is_paused);
            }
            KeyCode::Char('[') => return KeyRequest::Skip(-SKIPPED_US),
            KeyCode::Char(']') => return KeyRequest::Skip(SKIPPED_US),
            KeyCode::Char('{') => return KeyRequest::Skip(i64::MIN),
            KeyCode::Char('}') => return KeyRequest::Skip(i64::MAX),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.open(PageKind::Keys),
            KeyCode::Char('n') => self.open(PageKind::BlindSpots),
            KeyCode::Char('e') => self.explain(),
            KeyCode::Char('c') => return self.copy(),
            KeyCode::Char('R') => return self.record(),
            _ if !self.pages.is_empty() => self.page_key(key.code),
            _ => self.pane_key(key.code),
        }
        KeyRequest::Nothing
    }

    fn open(&mut self, kind: PageKind) {
        if self.pages.last().is_none_or(|page| page.kind != kind) {
            self.pages.push(OpenPage { kind, scroll: 0 });
        }
    }

    /// The commands of the remedy, one a line.
    fn copy(&mut self) -> KeyRequest {
        let problem = match self.shown_problem() {
            Some(id) => self.find(&id),
            None => None,
        };
        let Some(PaneItem::Problem(p)) = problem else {
            self.notice = Some("nothing to copy: no problem is selected".to_owned());
            return KeyRequest::Nothing;
        };
        let (steps, _) = steps(p.remedy.as_deref().unwrap_or_default());
        let commands: Vec<&str> = steps.iter().map(|step| step.command).collect();
        let commands: Vec<&str> = commands.into_iter().filter(|c| !c.is_empty()).collect();
        let text = commands.join("\n");
        let count = commands.len();
        self.notice = Some(match count {
            0 => "nothing to copy: this remedy has no command".to_owned(),
            1 => format!("sent to the terminal's clipboard: {text}"),
            n => format!("sent to the terminal's clipboard: {n} commands, one a line"),
        });
        match count {
            0 => KeyRequest::Nothing,
            _ => KeyRequest::Copy(text),
        }
    }

    /// Of a run. Its next state says what became of it.
    fn record(&mut self) -> KeyRequest {
        if self.observed.as_ref().is_some_and(|o| o.position.is_some()) {
            self.notice = Some("nothing to record: this is a recording".to_owned());
            return KeyRequest::Nothing;
        }
        KeyRequest::Record
    }

    /// The problem of the page, or else the selected one.
    fn shown_problem(&self) -> Option<RowId> {
        let of_page = self.pages.last().and_then(|page| match &page.kind {
            PageKind::Row(id @ RowId::Problem(_)) => Some(id.clone()),
            _ => None,
        });
        let chosen = self.chosen_problem();
        of_page.or_else(|| chosen.map(|p| RowId::Problem(p.life.id.clone())))
    }

    fn explain(&mut self) {
        if let Some(id) = self.shown_problem() {
            self.open(PageKind::Explanation(id));
        }
    }

    fn page_key(&mut self, code: KeyCode) {
        let Some(page) = self.pages.last_mut() else {
            return;
        };
        let by = match code {
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => {
                self.pages.pop();
                return;
            }
            KeyCode::Enter | KeyCode::Right => {
                let kind = page.kind.clone();
                return self.drill_down(kind);
            }
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::PageUp => -MANY,
            KeyCode::PageDown => MANY,
            KeyCode::Home | KeyCode::Char('g') => -FAR,
            KeyCode::End | KeyCode::Char('G') => FAR,
            _ => return,
        };
        page.scroll = page.scroll.saturating_add_signed(by);
    }

    fn pane_key(&mut self, code: KeyCode) {
        let at = self.pane.index();
        match code {
            KeyCode::Tab => self.pane = self.pane.next(),
            KeyCode::BackTab => self.pane = self.pane.previous(),
            KeyCode::Char(digit @ '1'..='5') => {
                let wanted = digit.to_digit(10).unwrap_or(1) as usize - 1;
                self.pane = Pane::ALL[wanted];
            }
            KeyCode::Char('s') => {
                self.orders[at] = (self.orders[at] + 1) % self.pane.orders().len();
            }
            KeyCode::Char('r') => {
                self.role = match self.role {
                    None => Some(Role::Server),
                    Some(Role::Server) => Some(Role::Client),
                    Some(Role::Client) => None,
                };
                self.add_up_networks();
            }
            KeyCode::Char('w') => {
                self.has_networks = !self.has_networks;
                self.pane = Pane::Peers;
                self.add_up_networks();
            }
            KeyCode::Char('z') => self.is_zoomed = !self.is_zoomed,
            KeyCode::Char('/') => {
                self.typing = Some(Typing {
                    text: self.query.text.clone(),
                    complaint: None,
                });
            }
            KeyCode::Enter | KeyCode::Right => {
                let rows = self.rows(self.pane);
                let chosen = rows.get(self.cursors[at].place(&rows));
                match chosen.as_ref().map(PaneItem::id) {
                    Some(RowId::Network(net, _)) => self.list_peers_of(&net),
                    Some(id) => self.open(PageKind::Row(id)),
                    None => (),
                }
            }
            KeyCode::Esc | KeyCode::Left => self.back(),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-MANY),
            KeyCode::PageDown => self.step(MANY),
            KeyCode::Home | KeyCode::Char('g') => self.step(-FAR),
            KeyCode::End | KeyCode::Char('G') => self.step(FAR),
            _ => (),
        }
    }

    /// From a page to what it is made of: handshakes of a problem or a peer, the last line of a handshake.
    fn drill_down(&mut self, kind: PageKind) {
        match kind {
            PageKind::Row(id @ RowId::Problem(_)) => self.narrowed = Some(id),
            PageKind::Row(RowId::Peer(addr, _)) => {
                let text = format!("{} peer:{addr}", self.query.text);
                match RowQuery::parse(text.trim_start()) {
                    Ok(query) => self.query = query,
                    Err(_) => return,
                }
            }
            PageKind::Row(RowId::Handshake(id)) => {
                let events = self.observed.iter().flat_map(|o| &o.events);
                let last = events.into_iter().find(|e| e.handshake() == Some(id));
                if let Some(serial) = last.map(|event| event.serial) {
                    self.open(PageKind::Row(RowId::Event(serial)));
                }
                return;
            }
            _ => return,
        }
        self.pane = Pane::Handshakes;
        self.pages.clear();
    }

    /// The peers of a network, one by one: by a filter, which Esc takes away.
    fn list_peers_of(&mut self, net: &IpNet) {
        let text = format!("{} peer:{net}", self.query.text);
        if let Ok(query) = RowQuery::parse(&text) {
            self.query = query;
            self.has_networks = false;
        }
    }

    fn step(&mut self, by: isize) {
        let at = self.pane.index();
        let mut cursor = std::mem::take(&mut self.cursors[at]);
        cursor.step(by, &self.rows(self.pane));
        self.cursors[at] = cursor;
    }

    /// Without the last thing that narrows the rows.
    fn back(&mut self) {
        if self.narrowed.take().is_some() {
            self.pane = Pane::Problems;
        } else if self.is_zoomed {
            self.is_zoomed = false;
        } else if !self.query.is_empty() {
            self.query = RowQuery::default();
            self.add_up_networks();
        } else {
            self.role = None;
        }
    }

    fn type_key(&mut self, code: KeyCode) {
        let Some(typing) = &mut self.typing else {
            return;
        };
        match code {
            KeyCode::Esc => self.typing = None,
            KeyCode::Enter => match RowQuery::parse(&typing.text) {
                Ok(query) => {
                    self.query = query;
                    self.typing = None;
                    self.add_up_networks();
                }
                Err(complaint) => typing.complaint = Some(complaint),
            },
            KeyCode::Backspace => {
                typing.text.pop();
                typing.complaint = None;
            }
            KeyCode::Char(c) => {
                typing.text.push(c);
                typing.complaint = None;
            }
            _ => (),
        }
    }
}
