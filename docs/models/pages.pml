/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page of a mirror:2 region: its word (lib/page.h), its frame and userfaultfd, the places of its copies, and all who change them.
 * README.md says what stands for what; the lines that begin with "check:" and "bug:" are what tests/models.sh runs.
 *
 * check: loss      -DPULLS=2 -DWRITES=1 -DEVICTS=2 -DSERVICE
 * check: loss-all  -DPULLS=3 -DWRITES=1 -DEVICTS=1 -DSERVICE
 * check: move      -DPULLS=1 -DWRITES=1 -DEVICTS=1 -DSERVICE -DMOVE
 * check: in-place  -DPULLS=1 -DWRITES=1 -DEVICTS=1 -DSERVICE -DGUEST
 * check: pin       -DPULLS=0 -DWRITES=1 -DEVICTS=2 -DPIN -DWAKE_LATER
 * check: waiters   -DPULLS=0 -DWRITES=3 -DEVICTS=3 -DWAKE_LATER
 * check: woken     -DPULLS=0 -DWRITES=2 -DEVICTS=2 -DWAKE_LATER ltl=woken
 * check: rebuilt   -DPULLS=1 -DWRITES=0 -DEVICTS=1 -DSERVICE -DGUEST ltl=rebuilt
 * bug: BUG_NOTE_NO_LOOK   -DPULLS=1 -DWRITES=1 -DEVICTS=1 -DSERVICE
 * bug: BUG_PUBLISH_FIRST  -DPULLS=1 -DWRITES=1 -DEVICTS=1 -DSERVICE
 * bug: BUG_WORD_FIRST     -DPULLS=1 -DWRITES=1 -DEVICTS=1 -DSERVICE
 * bug: BUG_DROP_UNSEEN    -DPULLS=2 -DWRITES=1 -DEVICTS=1 -DSERVICE
 * bug: BUG_NOT_OWNED      -DPULLS=0 -DWRITES=2 -DEVICTS=3
 * bug: BUG_PIN_CLEAN      -DPULLS=0 -DWRITES=1 -DEVICTS=2 -DPIN -DWAKE_LATER
 * bug: BUG_NO_AWAIT       -DPULLS=0 -DWRITES=1 -DEVICTS=2 -DPIN -DWAKE_LATER
 * bug: BUG_NO_WAKE        -DPULLS=0 -DWRITES=2 -DEVICTS=2 -DWAKE_LATER ltl=woken
 * bug: BUG_NO_REBUILD     -DPULLS=1 -DWRITES=1 -DEVICTS=1 -DSERVICE ltl=rebuilt
 */

/* ---- the word: state 0-2, waiters 3, copies 4-5, pinned 6, version 7 on ---- */
#define FRESH    0
#define FILLING  1
#define CLEAN    2
#define DIRTY    3
#define EVICTING 4
#define ABSENT   5
#define LOST     6

#define STATE(w)    ((w) & 7)
#define WAITERS     8
#define COPIES(w)   (((w) >> 4) & 3)
#define PINNED      64
#define VERSION(w)  ((w) >> 7)
#define WORD(s, c, v) ((s) | ((c) << 4) | ((v) << 7))
#define BUSY(w)     (STATE(w) == FILLING || STATE(w) == EVICTING)
#define RESIDENT(w) (STATE(w) == CLEAN || STATE(w) == DIRTY)

/* devices: 0 and 1 have the copies at first, 2 is spare; a placement names the device of each copy, 3 is none */
#define DEVICES 3
#define NONE 3
#define DEV(p, c) (((p) >> (2 * (c))) & 3)

short word = WORD(FRESH, 0, 0);
byte placement = 0 | 1 << 2;

bool pulled[DEVICES];       /* the media are gone */
bool gone[DEVICES];         /* device.gone: the process knows it */
byte held_version[DEVICES]; /* what the page's place on the device holds */
byte held_bytes[DEVICES];

bool mapped, protected, poisoned;
byte frame;                 /* what is mapped: the number of a write, 0 are zeros */
byte latest;                /* what the program wrote last: what everybody must read */

bool asleep, asked, ask_write, ask_protect; /* the program's thread in a fault; asked: no handler has read it yet */
bool look;                  /* service.look */
bool rebuilding;
byte inside;                /* bit of each worker that is inside (worker_enter) */
bool pinned_by_kernel;
byte running;               /* of the workers whose work is bounded: those that have not ended */

/* A copy that the word names, of a page that nobody has in hand, is where the placement says, with that version. */
inline copies_hold()
{
	assert(BUSY(word) || !(COPIES(word) & 1) || (DEV(placement, 0) != NONE &&
		(pulled[DEV(placement, 0)] || held_version[DEV(placement, 0)] == VERSION(word))));
	assert(BUSY(word) || !(COPIES(word) & 2) || (DEV(placement, 1) != NONE &&
		(pulled[DEV(placement, 1)] || held_version[DEV(placement, 1)] == VERSION(word))));
	assert(!RESIDENT(word) || mapped);
}

/* A page is lost only if it is nowhere any more. */
inline lost_rightly()
{
	assert(!mapped);
	assert(pulled[0] || held_version[0] != VERSION(word));
	assert(pulled[1] || held_version[1] != VERSION(word));
	assert(pulled[2] || held_version[2] != VERSION(word));
}

/* userfaultfd: a wake ends the waits at the page, read by a handler or not. */
inline wake()
{
	asleep = false; asked = false; ask_write = false; ask_protect = false
}

/*
 * page_step in a loop (`while (!page_step(...))`): one step on the word as it is. Leaving a busy state gives the waiters' bit to the caller: `waits`.
 */
inline to(to_state, to_copies, to_version)
{
#ifdef WAKE_LATER
	waits = (word & WAITERS) && !(to_state == FILLING || to_state == EVICTING);
#else
	if /* the model without WAKE_LATER: the owner's last step and its wake are one */
	:: (word & WAITERS) && !(to_state == FILLING || to_state == EVICTING) -> wake()
	:: else
	fi;
#endif
	word = WORD(to_state, to_copies, to_version) | (word & PINNED) | ((to_state == FILLING || to_state == EVICTING) -> (word & WAITERS) : 0);
	copies_hold()
}

inline wake_if_waits()
{
#ifdef WAKE_LATER
	if
	:: atomic { waits ->
#ifndef BUG_NO_WAKE
		wake();
#endif
		waits = false }
	:: else
	fi
#else
	skip
#endif
}

/* fill_lost, after the step to LOST */
inline poison()
{
	atomic { poisoned = true; wake() }
}

inline poison_if_lost()
{
	if
	:: atomic { lost -> lost = false; poisoned = true; wake() }
	:: else
	fi
}

/* page_drop_copies. lost: it became PAGE_LOST, the caller poisons it */
inline drop_copies(dropped)
{
	d_step {
		lost = false;
		if
		:: COPIES(word) & (dropped) ->
			if
			:: COPIES(word) & ~(dropped) ->
				word = word & ~(dropped << 4)
			:: else ->
				word = word & ~(dropped << 4);
				if
				:: STATE(word) == ABSENT -> lost_rightly(); word = (word & ~7) | LOST; lost = true
				:: STATE(word) == CLEAN -> word = (word & ~7) | DIRTY
				:: else
				fi
			fi;
			copies_hold()
		:: else
		fi
	}
}

/* device_write of one copy, and what mirror.c's write_copies makes of the result */
inline write_copy(wc, wc_version, wc_bytes)
{
	d_step {
		if
		:: DEV(place, wc) == NONE
		:: DEV(place, wc) != NONE && (gone[DEV(place, wc)] || pulled[DEV(place, wc)]) -> gone[DEV(place, wc)] = true; look = true
		:: else -> held_version[DEV(place, wc)] = wc_version; held_bytes[DEV(place, wc)] = wc_bytes; written = written | (1 << wc)
		fi
	}
}

/* mirror.c, strike_gone: by the placement that was written by */
inline strike_gone_copy(gc)
{
#ifndef BUG_NOTE_NO_LOOK
	if
	:: DEV(place, gc) != NONE && gone[DEV(place, gc)] -> look = true; drop_copies(1 << gc)
	:: else
	fi
#else
	skip
#endif
}

/* mirror_write of a page in hand: the new version to all places, the note, the second look */
inline mirror_write(mw_state, mw_bytes)
{
	atomic { place = placement; written = 0 };
	write_copy(0, VERSION(word) + 1, mw_bytes);
	write_copy(1, VERSION(word) + 1, mw_bytes);
	d_step { to(mw_state, written, VERSION(word) + 1); written = 0 };
	strike_gone_copy(0);
	strike_gone_copy(1);
	atomic { place = 0; lost = false }
}

/* mirror_read of a page in hand; got: `bytes` is it. A place that the word names and that holds another version would fail its tag. */
inline mirror_read()
{
#ifdef BUG_WORD_FIRST
	seen = word;
	place = placement;
#else
	place = placement;
	seen = word;
#endif
	got = false;
	read_copy(0);
	read_copy(1);
	place = 0
}

inline read_copy(rc)
{
	if
	:: atomic { !got && (COPIES(seen) & (1 << rc)) && DEV(place, rc) != NONE ->
		if
		:: gone[DEV(place, rc)] || pulled[DEV(place, rc)] -> gone[DEV(place, rc)] = true; look = true
		:: else ->
			assert(held_version[DEV(place, rc)] == VERSION(seen));
			bytes = held_bytes[DEV(place, rc)]; got = true
		fi }
	:: else
	fi
}

/* ---- writeback.c, evict.c ---- */

/* writeback_undo: resident and dirty */
inline undo()
{
	if
	:: moved -> atomic { mapped = true; protected = false; frame = bytes; wake(); moved = false }
	:: else
	fi;
	d_step { to(DIRTY, 0, VERSION(word)) };
	wake_if_waits()
}

#ifdef BUG_DROP_UNSEEN
#define DROP_LOOKS(was_clean) (was_clean)
#else
#define DROP_LOOKS(was_clean) true
#endif

/* take, hold, write, drop. stays: flushed, it stays resident */
inline evict(stays)
{
	seen = word;
	if
	:: atomic { word == seen && RESIDENT(seen) && !(seen & PINNED) && !(stays && STATE(seen) == CLEAN) ->
		clean = STATE(seen) == CLEAN; to(EVICTING, COPIES(seen), VERSION(seen)) };
		if
		:: clean
		:: !clean -> protected = true
#ifdef MOVE
		:: atomic { !clean && !stays -> bytes = frame; mapped = false; moved = true; }
#endif
		fi;
		if
		:: !clean ->
			if
			:: moved
			:: else -> bytes = frame /* sealed */
			fi;
			mirror_write(EVICTING, bytes);
			if
			:: atomic { COPIES(word) != 0 && stays -> to(CLEAN, COPIES(word), VERSION(word)); left = true };
				wake_if_waits()
			:: atomic { COPIES(word) != 0 && moved -> to(ABSENT, COPIES(word), VERSION(word)); moved = false; left = true };
				wake_if_waits()
			:: atomic { COPIES(word) == 0 -> left = true };
				undo()
			:: atomic { COPIES(word) != 0 && !stays && !moved -> skip }
			fi
		:: else
		fi;
		/* drop: who is in the pool no more stays, it is the only one now */
		if
		:: left
		:: atomic { !left && VERSION(word) > 0 && COPIES(word) == 0 && DROP_LOOKS(clean) -> skip };
			undo()
		:: atomic { else -> assert(VERSION(word) == 0 || COPIES(word) != 0) };
			mapped = false;
			d_step {
				if
				:: VERSION(word) > 0 -> to(ABSENT, COPIES(word), VERSION(word))
				:: else -> to(FRESH, COPIES(word), VERSION(word))
				fi };
			/* loss_orphan: its copies may have gone in this very moment */
			if
			:: d_step { STATE(word) == ABSENT && VERSION(word) > 0 && COPIES(word) == 0 -> lost_rightly(); word = (word & ~7) | LOST };
				poison()
			:: else
			fi;
			wake_if_waits()
		fi
	:: else
	fi;
	d_step { left = false; clean = false; bytes = 0; seen = 0; waits = false }
}

/* ---- fill.c ---- */

inline end_as_lost()
{
	d_step { lost_rightly(); to(LOST, 0, VERSION(word)); waits = false };
	poison()
}

/* fill_page, with the page in hand */
inline fill(writable)
{
	if
	:: atomic { VERSION(word) == 0 -> bytes = 0; got = true }
	:: else -> mirror_read()
	fi;
	if
	:: got ->
		atomic { mapped = true; protected = !writable; frame = bytes; wake() };
		/* finish: the copies may have gone while it was read, then this frame is the only one */
		d_step {
			if
			:: writable || (VERSION(word) > 0 && COPIES(word) == 0) -> to(DIRTY, 0, VERSION(word))
			:: else -> to(CLEAN, COPIES(word), VERSION(word))
			fi };
		wake_if_waits()
	:: else -> end_as_lost()
	fi;
	d_step { got = false; bytes = 0; seen = 0 }
}

/* fill_undo: it is in the pool as before, or it is nowhere */
inline undo_fill()
{
	if
	:: d_step { VERSION(word) > 0 && COPIES(word) == 0 -> lost_rightly(); to(LOST, 0, VERSION(word)); waits = false };
		poison()
	:: d_step { else ->
			if
			:: VERSION(word) == 0 -> to(FRESH, COPIES(word), VERSION(word))
			:: else -> to(ABSENT, COPIES(word), VERSION(word))
			fi };
		wake_if_waits()
	fi
}

/* ---- fault.c: a handler thread ---- */

/* page_wait: sets the bit, or wakes */
inline serve_busy()
{
	if
	:: atomic { BUSY(word) -> word = word | WAITERS }
	:: atomic { else -> wake() }
	fi
}

/* A write to a protected page: its protection is ended by who owns it. */
inline serve_protected()
{
#ifdef BUG_NOT_OWNED
	if
	:: RESIDENT(word) ->
		d_step { if :: RESIDENT(word) -> to(DIRTY, 0, VERSION(word)) :: else fi };
		atomic { protected = false; wake() }
	:: else -> serve_busy()
	fi
#else
	if
	:: atomic { RESIDENT(word) -> to(EVICTING, COPIES(word), VERSION(word)) };
		atomic { protected = false; wake() };
		d_step { to(DIRTY, 0, VERSION(word)) };
		wake_if_waits()
	:: atomic { else -> skip };
		serve_busy()
	fi
#endif
}

active proctype handler()
{
	short seen;
	byte place, bytes, written;
	bool waits, got, write, protect;

end:	do
	:: atomic { asked -> asked = false; write = ask_write; protect = ask_protect; 
#ifdef PIN
			inside = inside | 1
#endif
		};
		if
		:: protect -> serve_protected()
		:: else ->
			seen = word;
			if
			:: STATE(seen) == FRESH || STATE(seen) == ABSENT ->
				if
				:: atomic { word == seen -> to(FILLING, COPIES(seen), VERSION(seen)) };
					fill(write)
				:: atomic { else -> wake() } /* the access is made again */
				fi
			:: BUSY(seen) -> serve_busy()
			:: RESIDENT(seen) -> /* serve_resident: it was mapped meanwhile (or the next owner unmaps it, and wakes) */
				if
				:: atomic { mapped -> wake() }
				:: atomic { !mapped && RESIDENT(word) -> assert(false) }
				:: atomic { else -> wake() }
				fi
			:: STATE(seen) == LOST -> poison()
			fi
		fi;
		d_step { seen = 0; write = false; protect = false;
#ifdef PIN
			inside = inside & ~1
#endif
		}
	od
}

/* ---- the program ---- */

inline access()
{
	do
	:: poisoned -> break
	:: atomic { !poisoned && mapped && !write -> assert(frame == latest); break }
	:: atomic { !poisoned && mapped && write && !protected -> write = false; writes++; frame = writes; latest = writes; break }
	:: atomic { !poisoned && (!mapped || (write && protected)) -> asked = true; asleep = true; ask_write = write; ask_protect = mapped };
		!asleep
	od;
	write = false
}

active proctype program()
{
	byte writes = 0;
	bool write;
#ifdef GUEST
	short seen;
	byte place, bytes, written;
	bool waits, got, lost;
#endif

	do
	:: poisoned -> break /* SIGBUS */
	:: atomic { !poisoned && writes == WRITES && running == 0 -> break }
	:: atomic { !poisoned -> write = false };
		access()
	:: atomic { !poisoned && writes < WRITES -> write = true };
		access()
#ifdef GUEST
	:: !poisoned && writes < WRITES -> /* secpool_write of a whole page, which is not mapped */
		seen = word;
		if
		:: atomic { word == seen && (STATE(seen) == FRESH || STATE(seen) == ABSENT) -> to(FILLING, COPIES(seen), VERSION(seen)); seen = 0; writes++ };
			mirror_write(FILLING, writes);
			if
			:: atomic { COPIES(word) == 0 -> skip };
				end_as_lost()
			:: atomic { else -> latest = writes };
				undo_fill()
			fi
		:: else -> seen = 0
		fi
	:: !poisoned -> /* secpool_read of a whole page */
		seen = word;
		if
		:: atomic { word == seen && STATE(seen) == ABSENT -> to(FILLING, COPIES(seen), VERSION(seen)) };
			mirror_read();
			if
			:: atomic { got -> assert(bytes == latest); got = false; bytes = 0; seen = 0 };
				undo_fill()
			:: atomic { else -> seen = 0 };
				end_as_lost()
			fi
		:: else -> seen = 0
		fi
#endif
	od
}

/* ---- the cleaner, and secpool_flush ---- */

active proctype cleaner()
{
	short seen;
	byte place, bytes, written, n = EVICTS;
	bool waits, lost, clean, moved, left;

	running++;
	do
	:: n > 0 ->
#ifdef PIN
		inside = inside | 2;
#endif
		if
		:: evict(false)
		:: evict(true)
#ifdef PIN
		:: seen = word; /* protects its victims with what lies between them: this page is none (writeback.c, pinned_between) */
			if
			:: !(seen & PINNED) -> seen = 0; protected = mapped
			:: else -> seen = 0
			fi
#endif
		fi;
#ifdef PIN
		inside = inside & ~2;
#endif
		n--
	:: else -> break
	od;
	running--
}

/* ---- the service: losses, new places, rebuild ---- */

#ifdef SERVICE
bool handled[DEVICES];

/* loss.c, strike: what the region has on the device */
inline strike(d)
{
	if
	:: DEV(placement, 0) == d -> drop_copies(1)
	:: DEV(placement, 1) == d -> drop_copies(2)
	:: else
	fi;
	poison_if_lost()
}

/* region_read_places: keymgrd gives a lost copy the spare place while that is there */
inline replace(d)
{
	d_step {
		fresh = placement;
		if
		:: DEV(placement, 0) == d -> fresh = (fresh & ~3) | ((DEV(placement, 1) != 2 && !pulled[2]) -> 2 : NONE)
		:: DEV(placement, 1) == d -> fresh = (fresh & ~12) | (((DEV(placement, 0) != 2 && !pulled[2]) -> 2 : NONE) << 2)
		:: else
		fi };
#ifdef BUG_PUBLISH_FIRST
	d_step { placement = fresh; copies_hold() };
#else
	/* loss_strike_gone */
	if :: gone[0] -> strike(0) :: else fi;
	if :: gone[1] -> strike(1) :: else fi;
	if :: gone[2] -> strike(2) :: else fi;
	d_step { placement = fresh; copies_hold() };
#endif
	atomic { fresh = 0; rebuilding = true }
}

/* loss_scan, handle_loss */
#define NEWS ((gone[0] && !handled[0]) || (gone[1] && !handled[1]) || (gone[2] && !handled[2]))
inline handle(d)
{
#ifndef BUG_PUBLISH_FIRST
	strike(d);
#endif
	replace(d)
#ifdef BUG_PUBLISH_FIRST
	; strike(d)
#endif
}

#define USABLE(c)  (DEV(placement, c) != NONE && !gone[DEV(placement, c)])
#define MISSING(w) ((!(COPIES(w) & 1) && USABLE(0)) || (!(COPIES(w) & 2) && USABLE(1)))

/* rebuild.c, rebuild_copies, and mirror_rebuild */
inline rebuild()
{
	seen = word;
	if
	:: BUSY(seen) -> seen = 0 /* LATER */
	:: !BUSY(seen) && (VERSION(seen) == 0 || !MISSING(seen) || STATE(seen) == DIRTY || STATE(seen) == LOST) -> atomic { rebuilding = false; seen = 0 }
	:: STATE(seen) == CLEAN && VERSION(seen) > 0 && MISSING(seen) ->
		if
		:: d_step { word == seen -> to(DIRTY, 0, VERSION(seen)); seen = 0 };
			evict(true)
		:: else -> seen = 0
		fi
	:: STATE(seen) == ABSENT && MISSING(seen) ->
		if
		:: atomic { word == seen -> missing = ~COPIES(seen) & 3; to(FILLING, COPIES(seen), VERSION(seen)) };
			mirror_read();
			if
			:: got ->
				place = placement;
				if :: missing & 1 -> write_copy(0, VERSION(word), bytes) :: else fi;
				if :: missing & 2 -> write_copy(1, VERSION(word), bytes) :: else fi;
				/* give_back */
				d_step { to(ABSENT, COPIES(word) | written, VERSION(word)); written = 0; got = false; bytes = 0; missing = 0; seen = 0 };
				wake_if_waits();
				strike_gone_copy(0);
				poison_if_lost();
				strike_gone_copy(1);
				poison_if_lost();
				place = 0
			:: else -> d_step { missing = 0; seen = 0 }; end_as_lost()
			fi
		:: else -> seen = 0
		fi
	:: else -> seen = 0
	fi
}

active proctype service()
{
	short seen;
	byte place, bytes, written, fresh, missing;
	bool waits, lost, clean, moved, left, got;

end:	do
	:: d_step { look && !NEWS -> look = false }
	:: atomic { look && gone[0] && !handled[0] -> handled[0] = true }; handle(0)
	:: atomic { look && gone[1] && !handled[1] -> handled[1] = true }; handle(1)
	:: atomic { look && gone[2] && !handled[2] -> handled[2] = true }; handle(2)
	/* keymgrd says that a device is lost */
	:: atomic { pulled[0] && !gone[0] -> gone[0] = true; look = true }
	:: atomic { pulled[1] && !gone[1] -> gone[1] = true; look = true }
	:: atomic { pulled[2] && !gone[2] -> gone[2] = true; look = true }
#ifndef BUG_NO_REBUILD
	:: !look && rebuilding -> rebuild()
#endif
	od
}

active proctype nemesis()
{
	byte n = PULLS;

end:	do /* the first is 0 or 2: 1 would be the same as 0 */
	:: atomic { n > 0 && !pulled[0] -> pulled[0] = true; n-- }
	:: atomic { n > 0 && n < PULLS && !pulled[1] -> pulled[1] = true; n-- }
	:: atomic { n > 0 && !pulled[2] -> pulled[2] = true; n-- }
	od
}
#endif

/* ---- secpool_pin, and the kernel that writes to what is pinned ---- */

#ifdef PIN
active proctype pinner()
{
	short seen;
	byte place, bytes, written;
	bool waits, got;

	running++;
	/* pin_step */
	do
	:: seen = word;
		if
		:: STATE(seen) == FRESH || STATE(seen) == ABSENT ->
			if
			:: atomic { word == seen -> to(FILLING, COPIES(seen), VERSION(seen)) }; fill(true)
			:: else
			fi
		:: BUSY(seen) -> !BUSY(word) /* fault_await_page */
		:: STATE(seen) == CLEAN ->
			if
			:: atomic { word == seen -> to(EVICTING, COPIES(seen), VERSION(seen)) };
				atomic { protected = false; wake() };
				d_step { to(DIRTY, 0, VERSION(word)) };
				wake_if_waits()
			:: else
			fi
		:: STATE(seen) == DIRTY ->
			if
#ifdef BUG_PIN_CLEAN
			:: atomic { RESIDENT(word) -> word = word | PINNED; break }
#else
			:: atomic { STATE(word) == DIRTY -> word = word | PINNED; break }
#endif
			:: else
			fi
		fi;
		seen = 0
	od;
	seen = 0;
#ifndef BUG_NO_AWAIT
	/* workers_await: who was inside leaves */
	!(inside & 1);
	!(inside & 2);
#endif
	protected = false;
	/* the kernel stores without a fault; the program does not write at that time */
	atomic { assert(mapped && !protected); frame = WRITES + 1; latest = WRITES + 1 };
	assert(mapped && !protected && STATE(word) != CLEAN);
	atomic { word = word & ~PINNED; running-- }
}
#endif

/* nobody is left asleep in a fault */
ltl woken { [] (asleep -> <> !asleep) }

/* a page that is in the pool gets its copies back wherever there is a place */
#ifdef SERVICE
#define WHOLE (STATE(word) == LOST || STATE(word) == FRESH || VERSION(word) == 0 || STATE(word) == DIRTY || !MISSING(word))
ltl rebuilt { [] <> WHOLE }
#endif
