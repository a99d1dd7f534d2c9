/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stripe of an ec:2+1 region: its word (lib/stripe.h), the cells on the devices, who writes its two pages, reads them, rebuilds it, and handles the loss of a device (lib/erasure.c, lib/stripework.c).
 * README.md says what stands for what; the lines that begin with "check:" and "bug:" are what tests/models.sh runs.
 *
 * check: writers  -DPULLS=0 -DCORRUPTS=0 -DWRITES=3
 * check: loss     -DPULLS=1 -DCORRUPTS=0 -DWRITES=1
 * check: again    -DPULLS=1 -DCORRUPTS=0 -DWRITES=2 -DONE_WRITER
 * check: losses   -DPULLS=2 -DCORRUPTS=0 -DWRITES=1 -DONE_WRITER
 * check: bad      -DPULLS=0 -DCORRUPTS=1 -DWRITES=2
 * check: bad-loss -DPULLS=1 -DCORRUPTS=1 -DWRITES=1 -DONE_WRITER
 * bug: BUG_NO_LOOK         -DPULLS=1 -DCORRUPTS=0 -DWRITES=1
 * bug: BUG_NOT_CHECKED     -DPULLS=0 -DCORRUPTS=1 -DWRITES=2
 * bug: BUG_NOT_OWNED       -DPULLS=1 -DCORRUPTS=0 -DWRITES=1
 * bug: BUG_PUBLISH_FIRST   -DPULLS=1 -DCORRUPTS=0 -DWRITES=1
 * bug: BUG_PLACES_FIRST    -DPULLS=2 -DCORRUPTS=0 -DWRITES=2 -DONE_WRITER
 * bug: BUG_KEEP_PARITY     -DPULLS=2 -DCORRUPTS=0 -DWRITES=1
 * bug: BUG_NO_REBUILD      -DPULLS=1 -DCORRUPTS=0 -DWRITES=1
 */

/* lanes 0 and 1 are data, 2 is parity; devices 0 to 2 have them at first, 3 is spare */
#define PARITY  2
#define LANES   3
#define DEVICES 4
#define NONE    7

/* the word: a bit for each data lane, and whether the parity is valid */
bool busy, included[2], data_valid[2], parity_valid;
byte place[LANES];

bool pulled[DEVICES], gone[DEVICES], corrupt[DEVICES];
/* a data cell is a version of its page; a parity cell is the pair of the versions that it was made of */
byte held[DEVICES], held_other[DEVICES];

byte version[2];        /* of the page, as in its word and its tag */
bool page_taken[2], lost[2];
bool struck;            /* all lanes of what is gone were struck */

#define MISSING(l)    (included[l] && !data_valid[l])
#define DECODABLE     ((MISSING(0) -> 1 : 0) + (MISSING(1) -> 1 : 0) <= (parity_valid -> 1 : 0))
#define VALUE(l)      (included[l] -> version[l] : 0)
#define ALIVE(d)      ((d) != NONE && !pulled[d])
#define USABLE(d)     ((d) != NONE && !gone[d])

/* What the word says of a stripe that nobody has in hand. */
inline holds_what_it_says()
{
	assert(!included[0] || !data_valid[0] || (place[0] != NONE && (pulled[place[0]] || corrupt[place[0]] || held[place[0]] == version[0])));
	assert(!included[1] || !data_valid[1] || (place[1] != NONE && (pulled[place[1]] || corrupt[place[1]] || held[place[1]] == version[1])));
	assert(!parity_valid || (place[PARITY] != NONE && (pulled[place[PARITY]] || corrupt[place[PARITY]] ||
		(held[place[PARITY]] == VALUE(0) && held_other[place[PARITY]] == VALUE(1)))));
	/* loss.c: what was handled is named by no word any more */
	assert(!struck || !included[0] || !data_valid[0] || !gone[place[0]]);
	assert(!struck || !included[1] || !data_valid[1] || !gone[place[1]]);
	assert(!struck || !parity_valid || !gone[place[PARITY]])
}

/* What is really there, whatever the word says. */
#define THERE(l)      (ALIVE(place[l]) && held[place[l]] == version[l])
#define PARITY_THERE  (ALIVE(place[PARITY]) && held[place[PARITY]] == VALUE(0) && held_other[place[PARITY]] == VALUE(1))

/* stripe_give_up: and the pages are lost. The redundancy must not cover it. */
inline give_up()
{
	d_step {
		assert(!MISSING(0) || !(THERE(0) || (PARITY_THERE && (!included[1] || THERE(1)))));
		assert(!MISSING(1) || !(THERE(1) || (PARITY_THERE && (!included[0] || THERE(0)))));
		if
		:: MISSING(0) -> included[0] = false; lost[0] = true
		:: else
		fi;
		if
		:: MISSING(1) -> included[1] = false; lost[1] = true
		:: else
		fi;
#ifndef BUG_KEEP_PARITY
		parity_valid = false
#endif
	}
}

/* stripe_release */
inline release()
{
	do
	:: d_step { DECODABLE -> busy = false; holds_what_it_says() }; break
	:: d_step { !DECODABLE -> skip }; give_up()
	od
}

/* stripe_take, and the places after it. `mine`: the placement that the owner works with. */
inline take()
{
#ifdef BUG_PLACES_FIRST
	d_step { mine[0] = place[0]; mine[1] = place[1]; mine[2] = place[2] };
	atomic { !busy -> busy = true };
#else
	atomic { !busy -> busy = true };
	d_step { mine[0] = place[0]; mine[1] = place[1]; mine[2] = place[2] };
#endif
	known[0] = false; known[1] = false
}

/* stripework_load_data: what is included of a data lane, from its place, checked against its tag */
inline load_data(l)
{
	if
	:: d_step { !included[l] -> cell[l] = 0; known[l] = true }
	:: d_step { included[l] && data_valid[l] ->
		if
		:: ALIVE(mine[l]) ->
			cell[l] = held[mine[l]];
			if
			:: cell[l] == version[l] -> known[l] = true
			:: else -> data_valid[l] = false /* bad */
			fi
		:: else -> data_valid[l] = false
		fi }
	:: d_step { MISSING(l) -> skip }
	fi
}

inline load_parity()
{
	d_step {
		has_parity = false;
		if
		:: parity_valid && ALIVE(mine[PARITY]) -> has_parity = true; cell[2] = held[mine[PARITY]]; cell_other = held_other[mine[PARITY]]
		:: else -> parity_valid = false
		fi
	}
}

/* stripework_gather of all data: by decoding where it must be; else what is missing is given up */
inline gather()
{
	load_data(0); load_data(1);
	if
	:: known[0] && known[1]
	:: !(known[0] && known[1]) ->
		load_parity();
		/* decode: the other lane is taken out of the parity; what comes is checked against its tag */
		if
		:: d_step { has_parity && known[1] && !known[0] && cell_other == cell[1] && cell[2] == version[0] -> cell[0] = cell[2]; known[0] = true }
		:: d_step { has_parity && known[0] && !known[1] && cell[2] == cell[0] && cell_other == version[1] -> cell[1] = cell_other; known[1] = true }
		:: else ->
			d_step {
				if
				:: !known[0] -> data_valid[0] = false
				:: else
				fi;
				if
				:: !known[1] -> data_valid[1] = false
				:: else
				fi;
#ifndef BUG_KEEP_PARITY
				parity_valid = false
#endif
			};
			give_up();
			d_step {
				if
				:: !known[0] -> cell[0] = 0
				:: else
				fi;
				if
				:: !known[1] -> cell[1] = 0
				:: else
				fi
			}
		fi
	fi
}

inline store(l, value, other)
{
	d_step {
		written[l] = false;
		if
		:: ALIVE(mine[l]) -> held[mine[l]] = value; held_other[mine[l]] = other; corrupt[mine[l]] = false; written[l] = true
		:: else
		fi
	}
}

/* stripework_note_written: a bit for what was written (and `clears`: none for what was to be and was not); then a look whether it is still there */
inline note()
{
	d_step {
		if
		:: written[0] -> data_valid[0] = true
		:: !written[0] && clears[0] -> data_valid[0] = false
		:: else
		fi;
		if
		:: written[1] -> data_valid[1] = true
		:: !written[1] && clears[1] -> data_valid[1] = false
		:: else
		fi;
		if
		:: written[2] -> parity_valid = true
		:: !written[2] && clears[2] -> parity_valid = false
		:: else
		fi
	};
#ifndef BUG_NO_LOOK
	d_step {
		if
		:: written[0] && !ALIVE(mine[0]) -> data_valid[0] = false
		:: else
		fi;
		if
		:: written[1] && !ALIVE(mine[1]) -> data_valid[1] = false
		:: else
		fi;
		if
		:: written[2] && !ALIVE(mine[2]) -> parity_valid = false
		:: else
		fi
	}
#endif
}

#define HAND byte mine[LANES]; byte cell[LANES]; byte cell_other; bool known[2]; bool written[LANES]; bool clears[LANES]; bool has_parity

/* erasure_write of one page, and erasure_read of it between: who has the page in hand */
proctype worker(byte p)
{
	HAND;
	byte writes = WRITES;
	byte fresh, q;

	q = 1 - p;
	do
	:: writes > 0 && !lost[p] ->
		writes--;
		atomic { !page_taken[p] -> page_taken[p] = true };
		if
		:: lost[p] -> page_taken[p] = false; break
		:: else
		fi;
		fresh = version[p] + 1;
		take();
		d_step { written[0] = false; written[1] = false; written[2] = false; clears[0] = false; clears[1] = false; clears[2] = true; clears[p] = true };
		has_parity = false;
		if
		:: parity_valid && included[p] -> /* update_parity, by the difference */
			load_parity();
#ifdef BUG_NOT_CHECKED
			d_step { known[p] = ALIVE(mine[p]); cell[p] = (ALIVE(mine[p]) -> held[mine[p]] : 0) };
#else
			load_data(p);
#endif
			d_step {
				if
				:: has_parity && known[p] && p == 0 -> cell[2] = cell[2] + fresh - cell[0]
				:: has_parity && known[p] && p == 1 -> cell_other = cell_other + fresh - cell[1]
				:: else -> has_parity = false
				fi
			}
		:: true
		fi;
		if
		:: !has_parity -> /* make_parity: of the other page */
			d_step { known[0] = false; known[1] = false };
			load_data(q);
			if
			:: known[q]
			:: !known[q] -> gather()
			fi;
			d_step {
				if
				:: p == 0 -> cell[2] = fresh; cell_other = cell[1]
				:: else -> cell[2] = cell[0]; cell_other = fresh
				fi
			}
		:: else
		fi;
		store(p, fresh, 0);
		if
		:: USABLE(mine[PARITY]) -> store(2, cell[2], cell_other)
		:: else
		fi;
		version[p] = fresh; /* publish: tag and word of the page */
		d_step { included[p] = true };
		note();
		release();
		page_taken[p] = false
	:: !lost[p] -> /* erasure_read */
		atomic { !page_taken[p] -> page_taken[p] = true };
		if
		:: lost[p] || !included[p] -> page_taken[p] = false
		:: else ->
			take();
			gather();
			/* it is the version that was written last, or lost */
			assert(lost[p] || (known[p] && cell[p] == version[p]));
			release();
			page_taken[p] = false
		fi;
		break
	:: writes == 0 -> break
	:: lost[p] -> break
	od
}

/* lanes that lack what they should hold, and can be written */
#define LACKS(l)      (MISSING(l) && place[l] != NONE && !gone[place[l]])
#define LACKS_PARITY  ((included[0] || included[1]) && !parity_valid && place[PARITY] != NONE && !gone[place[PARITY]])
#define LACKING       (LACKS(0) || LACKS(1) || LACKS_PARITY)

/* erasure_rebuild */
proctype rebuild()
{
	HAND;

end:	do
#ifdef BUG_NO_REBUILD
	:: false ->
#else
	:: LACKING ->
#endif
#ifdef BUG_NOT_OWNED
		d_step { mine[0] = place[0]; mine[1] = place[1]; mine[2] = place[2]; known[0] = false; known[1] = false };
#else
		take();
#endif
		gather();
		d_step { written[0] = false; written[1] = false; written[2] = false; clears[0] = false; clears[1] = false; clears[2] = false };
		if
		:: MISSING(0) && USABLE(mine[0]) -> store(0, cell[0], 0)
		:: else
		fi;
		if
		:: MISSING(1) && USABLE(mine[1]) -> store(1, cell[1], 0)
		:: else
		fi;
		if
		:: (included[0] || included[1]) && !parity_valid && USABLE(mine[2]) -> store(2, cell[0], cell[1])
		:: else
		fi;
		note();
#ifdef BUG_NOT_OWNED
		skip
#else
		release()
#endif
	od
}

/* erasure_strike: a lane whose device is gone. One that is in a worker's hand is looked at when it lets go. */
inline strike(l)
{
	undecodable = false;
	d_step {
		if
		:: l < 2 -> data_valid[l] = false
		:: else -> parity_valid = false
		fi;
		undecodable = !DECODABLE
	};
	if
	:: atomic { undecodable && !busy -> busy = true };
		release()
	:: else
	fi
}

/* loss_scan and loss.c, replace: strike, then new places */
proctype loss()
{
	byte d, l;
	bool undecodable, spare = true;

end:	do
	:: atomic { pulled[0] && !gone[0] -> gone[0] = true; struck = false; d = 0 }; goto handle
	:: atomic { pulled[1] && !gone[1] -> gone[1] = true; struck = false; d = 1 }; goto handle
	:: atomic { pulled[2] && !gone[2] -> gone[2] = true; struck = false; d = 2 };
handle:
		l = 0;
		do
		:: l < LANES && place[l] != d -> l++
		:: l < LANES && place[l] == d -> break
		:: l == LANES -> break
		od;
#ifdef BUG_PUBLISH_FIRST
		if
		:: spare -> spare = false; place[l] = 3
		:: else
		fi;
#endif
		strike(l);
#ifndef BUG_PUBLISH_FIRST
		if
		:: spare -> spare = false; place[l] = 3
		:: else -> place[l] = NONE
		fi;
#endif
		struck = true
	od
}

proctype nemesis()
{
	byte pulls = PULLS, corrupts = CORRUPTS;

	do
	:: atomic { pulls > 0 && !pulled[0] -> pulled[0] = true; pulls-- }
	/* lane 1 is as lane 0: it goes second */
	:: atomic { pulls > 0 && !pulled[1] && pulled[0] -> pulled[1] = true; pulls-- }
	:: atomic { pulls > 0 && !pulled[2] -> pulled[2] = true; pulls-- }
	/* bytes of a data cell change on the device: an older version comes back */
	:: atomic { corrupts > 0 && held[0] > 0 && place[0] == 0 -> corrupt[0] = true; held[0] = held[0] - 1; corrupts-- }
	:: break
	od
}

#define WHOLE (!MISSING(0) && !MISSING(1) && (parity_valid || !(included[0] || included[1])))

init {
	d_step { place[0] = 0; place[1] = 1; place[2] = 2 };
#ifdef ONE_WRITER
	/* the other page was written before */
	d_step { included[1] = true; data_valid[1] = true; version[1] = 1; held[1] = 1; parity_valid = true; held_other[2] = 1 };
	atomic { run worker(0); run rebuild(); run loss(); run nemesis() };
#else
	atomic { run worker(0); run worker(1); run rebuild(); run loss(); run nemesis() };
#endif
#if PULLS + CORRUPTS <= 1
	/* with a spare device everything is whole again when nobody has anything left to do */
	timeout;
	assert(WHOLE)
#endif
}
