/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keymgrd (front and enclave), hotplugd, clients and what is on the devices: device state, extent state, region state, key state.
 * README.md says what stands for what. A device has one extent, a client has one region of LANES lanes; MARKS: incarnations of a device's media, 1 is there at first.
 *
 * check: two-clients  -DCLIENTS=2 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=0 -DHKILLS=0
 * check: crash        -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=1 -DHKILLS=0
 * check: crash-two    -DCLIENTS=2 -DLANES=1 -DDEVICES=1 -DPULLS=0 -DKILLS=1 -DHKILLS=0
 * check: hotplugd     -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=0 -DHKILLS=1 -DBADS=1
 * check: mirror       -DCLIENTS=1 -DLANES=2 -DDEVICES=3 -DPULLS=1 -DKILLS=0 -DHKILLS=0
 * check: failover     -DCLIENTS=1 -DLANES=1 -DDEVICES=2 -DPULLS=1 -DKILLS=0 -DHKILLS=0 ltl=failover
 * check: replaced     -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=1 -DHKILLS=0 ltl=replaced
 * check: answered     -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=1 -DHKILLS=0 ltl=answered
 * check: scrubbed     -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=1 -DHKILLS=0 ltl=scrubbed
 * bug: BUG_NO_SCRUB       -DCLIENTS=2 -DLANES=1 -DDEVICES=1 -DPULLS=0 -DKILLS=0 -DHKILLS=0
 * bug: BUG_FREE_MARK      -DCLIENTS=2 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=0 -DHKILLS=0
 * bug: BUG_NOT_FRESH      -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=0 -DKILLS=0 -DHKILLS=0 -DBADS=1
 * bug: BUG_RESUME         -DCLIENTS=2 -DLANES=1 -DDEVICES=2 -DPULLS=0 -DKILLS=0 -DHKILLS=0
 * bug: BUG_SILENCE        -DCLIENTS=2 -DLANES=1 -DDEVICES=1 -DPULLS=0 -DKILLS=1 -DHKILLS=0
 * bug: BUG_KEEP_KEY       -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=0 -DKILLS=0 -DHKILLS=0
 * bug: BUG_NOT_TOLD       -DCLIENTS=1 -DLANES=1 -DDEVICES=2 -DPULLS=1 -DKILLS=0 -DHKILLS=0 ltl=failover
 * bug: BUG_BUSY           -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=1 -DKILLS=1 -DHKILLS=0 ltl=replaced
 * bug: BUG_NO_RESTART     -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=0 -DKILLS=1 -DHKILLS=0 ltl=scrubbed
 * bug: BUG_NO_WAITER      -DCLIENTS=1 -DLANES=1 -DDEVICES=1 -DPULLS=0 -DKILLS=0 -DHKILLS=0 ltl=answered
 */
#ifndef BADS
#define BADS 0
#endif

/* device states (hotplug/devstate.c); draining and offline are reached by nothing yet */
#define ABSENT      0
#define ATTESTING   1 /* and discovered: keymgrd does the same for both */
#define ONLINE      2
#define QUARANTINED 3
#define SUSPECT     4
#define LOST        5

/* extents (keymgr/extents.h) */
#define UNKNOWN   0
#define FREE      1
#define IN_USE    2
#define SET_ASIDE 3
#define RELEASING 4
#define SCRUBBING 5
#define DIFFERED  6

/* regions (keymgr/regions.h) */
#define NONE      0
#define CREATING  1
#define LIVE      2
#define ENDING    3

/* the media: what is there, whatever anybody knows */
bool file[DEVICES];
byte mark[DEVICES];
byte holds[DEVICES];     /* whose ciphertext is in the extent: 0 nobody's, else 1 + client */

/* keymgrd's directory: durable */
byte x_state[DEVICES], x_region[DEVICES], x_lane[DEVICES];
byte x_mark[DEVICES];    /* devices.media */
byte r_state[CLIENTS];
bool r_wrap[CLIENTS];    /* the wrapped key is in the key store */

/* keymgrd's memory, and the enclave's */
bool k_up = true;
byte k_state[DEVICES];
bool k_fd[DEVICES];      /* the media's descriptor is open */
bool k_seen[DEVICES];
bool k_fresh[DEVICES];   /* the enclave's verdict */
bool k_key[CLIENTS];     /* the enclave's handle */
bool k_session[CLIENTS], k_watched[CLIENTS], k_waiter[CLIENTS];
bool k_scrubbing;        /* one extent is with the thread, or its result on the way back */
byte job = 255;          /* the extent that the thread has */
byte result = 255;       /* 255, or the extent that it is done with */
bool matched;
byte answer[CLIENTS * LANES]; /* EXTENTS: device + 1 */

/* hotplugd's memory */
bool h_up = true, h_connected = true;
byte h_state[DEVICES], h_mark[DEVICES];
bool h_again[DEVICES];    /* connected anew: not attested again yet */
byte bads = BADS;

/* ATTEST: begin and evidence in one; STATE: DEVICE_STATE */
mtype = { ATTEST, STATE, VERDICT, CREATE, EXTENTS, REPLACE, RELEASE, RESUME, GOOD, BUSY, NO_SPACE, REFUSED };
chan h2k = [2 * DEVICES] of { mtype, byte, byte, byte };
chan k2h = [DEVICES] of { mtype, byte, bool };
chan c2k[CLIENTS] = [1] of { mtype, byte };
chan k2c[CLIENTS] = [1] of { mtype };

/* a client's memory */
bool c_alive[CLIENTS], c_key[CLIENTS], c_serves[CLIENTS], c_reported[CLIENTS], c_asks[CLIENTS];
#define AT(c, d) ((c) * DEVICES + (d))
#define LANE(c, l) ((c) * LANES + (l))
byte c_mark[CLIENTS * DEVICES];    /* its newest mapping of the device: the mark, 0 none */
byte c_gone[CLIENTS * DEVICES];    /* incarnations up to this one are gone */
byte c_handled[CLIENTS * DEVICES];
bool c_news[CLIENTS * DEVICES];    /* DEVICE is on the way to it */
byte c_told[CLIENTS * DEVICES];    /* what the last says: the mark of what is online, 0 lost */
byte c_place[CLIENTS * LANES];     /* device + 4 * mark; 0 none */
bool c_valid[CLIENTS * LANES];     /* the words of its pages name this lane */

#define PLACE(d, m)  ((d) + 4 * (m))
#define PDEV(p)      ((p) & 3)
#define PMARK(p)     ((p) >> 2)
#define USABLE(c, l) (c_place[LANE(c, l)] != 0 && PMARK(c_place[LANE(c, l)]) > c_gone[AT(c, PDEV(c_place[LANE(c, l)]))])
#define THERE(p)     (file[PDEV(p)] && mark[PDEV(p)] == PMARK(p))
#define WHOLE(d)     (file[d])

/* ---- keymgrd ---- */

/* devices.c, tell_all: the clients get the state in the order of the answers (places.c looks at it before it uses one) */
inline tell(td, tmark)
{
	c_n = 0;
	do
	:: c_n < CLIENTS ->
#ifndef BUG_NOT_TOLD /* a place that is stored to is seen to be gone all the same, but not when other media are there again */
		if
		:: k_session[c_n] -> c_news[AT(c_n, td)] = true; c_told[AT(c_n, td)] = tmark
		:: else
		fi;
#endif
		c_n++
	:: else -> break
	od;
	c_n = 0
}

/* devices_leave. Clients take note of lost and absent only */
inline leave(ld, lstate)
{
	if
	:: !(!k_fd[ld] && lstate == ATTESTING) -> k_fresh[ld] = false
	:: else
	fi;
	k_seen[ld] = true;
	if
	:: k_state[ld] == lstate && !k_fd[ld]
	:: else ->
		k_state[ld] = lstate;
		k_fd[ld] = false;
		if
		:: lstate == LOST || lstate == ABSENT -> tell(ld, 0)
		:: else
		fi
	fi
}

/* devices_look */
inline look(kd)
{
	if
	:: k_fd[kd] && !WHOLE(kd) -> leave(kd, LOST)
	:: else
	fi
}

/* devstore_change: the media are others. What regions have on the same file is set aside, for their clients may still map it. */
inline media_changed(md)
{
	if
	:: x_region[md] != 0 && (x_state[md] == IN_USE || x_state[md] == SET_ASIDE) ->
#ifdef BUG_FREE_MARK
		x_state[md] = UNKNOWN; x_region[md] = 0
#else
		x_state[md] = SET_ASIDE
#endif
	:: x_region[md] != 0 && x_state[md] == SCRUBBING -> x_state[md] = RELEASING
	:: x_region[md] == 0 -> x_state[md] = UNKNOWN
	:: else
	fi
}

/* hotplug_handle_state */
inline take_state(sd, sstate, smark)
{
	if
	:: sstate == ONLINE ->
		if
		:: !WHOLE(sd) || mark[sd] != smark -> leave(sd, LOST)
		:: WHOLE(sd) && mark[sd] == smark && !k_fresh[sd] -> leave(sd, QUARANTINED)
		:: else ->
			if
			:: x_mark[sd] != smark ->
				if
				:: k_fd[sd] -> k_fd[sd] = false; k_state[sd] = LOST; tell(sd, 0)
				:: else
				fi;
				media_changed(sd);
				x_mark[sd] = smark
			:: else
			fi;
			k_fd[sd] = true; k_seen[sd] = true;
			if
			:: k_state[sd] != ONLINE -> k_state[sd] = ONLINE; tell(sd, smark)
			:: else
			fi
		fi
	:: sstate == ATTESTING && k_fd[sd] && x_mark[sd] == smark && WHOLE(sd) /* a restarted hotplugd attests what is in use */
	:: else -> leave(sd, sstate)
	fi
}

#ifdef BUG_NOT_FRESH
#define FRESH(d) true
#else
#define FRESH(d) k_fresh[d]
#endif

/* extents_take, extents_fill: a place for each lane that has none; `enough` says whether all have one */
inline place_lanes(pc)
{
	d_n = 0;
	do
	:: d_n < DEVICES -> look(d_n); d_n++
	:: else -> break
	od;
	l_n = 0; enough = true;
	do
	:: l_n < LANES ->
		d_n = 0; found = false;
		do
		:: d_n < DEVICES -> found = found || (x_state[d_n] == IN_USE && x_region[d_n] == pc + 1 && x_lane[d_n] == l_n); d_n++
		:: else -> break
		od;
		d_n = 0;
		do
		:: !found && d_n < DEVICES ->
			if
			:: x_state[d_n] == FREE && k_state[d_n] == ONLINE && FRESH(d_n) ->
				/* what is given out is scrubbed, and its device is online and attested */
				assert(k_fresh[d_n] && k_fd[d_n]);
				assert(holds[d_n] == 0);
				x_state[d_n] = IN_USE; x_region[d_n] = pc + 1; x_lane[d_n] = l_n; found = true
			:: else -> d_n++
			fi
		:: else -> break
		od;
		enough = enough && found;
		l_n++
	:: else -> break
	od;
	d_n = 0; l_n = 0; found = false
}

/* a region's extents from one state to another */
inline move_extents(mc, from1, from2, mto)
{
	d_n = 0;
	do
	:: d_n < DEVICES ->
		if
		:: x_region[d_n] == mc + 1 && (x_state[d_n] == from1 || x_state[d_n] == from2) ->
			x_state[d_n] = mto;
			if
			:: mto == FREE -> x_region[d_n] = 0
			:: else
			fi
		:: else
		fi;
		d_n++
	:: else -> break
	od;
	d_n = 0
}

/* kill -9 of keymgrd between two transactions: the enclave and the scrub thread go with it */
inline may_crash()
{
	if
	:: d_step { kills > 0 -> kills--; crashed = true }
	:: true
	fi;
	if
	:: crashed -> goto crash
	:: else
	fi
}

/* releases_begin. The steps that are left are done again after a crash. */
inline begin_release(rc)
{
	d_step {
		r_state[rc] = ENDING;
#ifdef BUG_NO_SCRUB
		move_extents(rc, IN_USE, SET_ASIDE, FREE)
#else
		move_extents(rc, IN_USE, SET_ASIDE, RELEASING)
#endif
	};
	may_crash();
#ifndef BUG_KEEP_KEY
	k_key[rc] = false;
#endif
	may_crash();
	r_wrap[rc] = false
}

/* releases.c, drop_unreachable: space on a device that is not there is done with */
inline drop_unreachable(ud)
{
	if
	:: !k_fd[ud] && k_seen[ud] && x_state[ud] == RELEASING -> x_state[ud] = UNKNOWN; x_region[ud] = 0
	:: else
	fi
}

#define HAS(c, d)  (x_region[d] == (c) + 1)
#if DEVICES == 1
#define HAS_ANY(c) HAS(c, 0)
#elif DEVICES == 2
#define HAS_ANY(c) (HAS(c, 0) || HAS(c, 1))
#else
#define HAS_ANY(c) (HAS(c, 0) || HAS(c, 1) || HAS(c, 2))
#endif
#define TO_SCRUB(d) (!k_scrubbing && k_fd[d] && (x_state[d] == RELEASING || x_state[d] == UNKNOWN))
#define TO_DROP(d)  (!k_fd[d] && k_seen[d] && x_state[d] == RELEASING)

proctype keymgrd()
{
	byte c, d, state, m, kills = KILLS, c_n, d_n, l_n;
	bool crashed, found, enough, good;

end:	do
	:: atomic { h2k?ATTEST, d, state, m ->
		/* a verdict: good, or bad while there is one left */
		if
		:: good = true
		:: bads > 0 -> bads--; good = false
		fi;
		k_fresh[d] = good;
		if
		:: h_connected -> k2h!VERDICT, d, good
		:: else
		fi;
		d = 0; state = 0; m = 0; good = false }
	:: d_step { h2k?STATE, d, state, m -> take_state(d, state, m); d = 0; state = 0; m = 0 }

	/* owners.c, on_death */
	:: atomic { k_watched[0] && !c_alive[0] -> k_watched[0] = false; c = 0 }; goto dead
#if CLIENTS > 1
	:: atomic { k_watched[1] && !c_alive[1] -> k_watched[1] = false; c = 1 }; goto dead
#endif

	:: atomic { c2k[0]?[CREATE, _] -> c2k[0]?CREATE, _; c = 0 }; goto create
	:: atomic { c2k[0]?[RELEASE, _] -> c2k[0]?RELEASE, _; c = 0 }; goto release
	:: d_step { c2k[0]?[REPLACE, _] -> c2k[0]?REPLACE, d; c = 0 }; goto replace
	:: atomic { c2k[0]?[RESUME, _] -> c2k[0]?RESUME, d; c = 0 }; goto resume
	:: atomic { c2k[0]?[EXTENTS, _] -> c2k[0]?EXTENTS, d; c = 0 }; goto extents
#if CLIENTS > 1
	:: atomic { c2k[1]?[CREATE, _] -> c2k[1]?CREATE, _; c = 1 }; goto create
	:: atomic { c2k[1]?[RELEASE, _] -> c2k[1]?RELEASE, _; c = 1 }; goto release
	:: d_step { c2k[1]?[REPLACE, _] -> c2k[1]?REPLACE, d; c = 1 }; goto replace
	:: atomic { c2k[1]?[RESUME, _] -> c2k[1]?RESUME, d; c = 1 }; goto resume
	:: atomic { c2k[1]?[EXTENTS, _] -> c2k[1]?EXTENTS, d; c = 1 }; goto extents
#endif

	/* on_kick: what is unreachable, what is finished, what is next for the thread */
	:: d_step { TO_DROP(0) -> drop_unreachable(0) }
	:: d_step { TO_SCRUB(0) -> x_state[0] = SCRUBBING; k_scrubbing = true; job = 0 }
#if DEVICES > 1
	:: d_step { TO_DROP(1) -> drop_unreachable(1) }
	:: d_step { TO_SCRUB(1) -> x_state[1] = SCRUBBING; k_scrubbing = true; job = 1 }
#endif
#if DEVICES > 2
	:: d_step { TO_DROP(2) -> drop_unreachable(2) }
	:: d_step { TO_SCRUB(2) -> x_state[2] = SCRUBBING; k_scrubbing = true; job = 2 }
#endif
	:: atomic { r_state[0] == ENDING && !HAS_ANY(0) -> c = 0 }; goto finish
#if CLIENTS > 1
	:: atomic { r_state[1] == ENDING && !HAS_ANY(1) -> c = 1 }; goto finish
#endif

	/* on_scrub, judge, extents_scrub_end */
	:: d_step { result != 255 ->
		d = result;
		if
		:: !matched -> look(d)
		:: else
		fi;
		if
		:: x_state[d] != SCRUBBING /* its media changed meanwhile */
		:: x_state[d] == SCRUBBING && matched -> x_state[d] = FREE; x_region[d] = 0
		:: x_state[d] == SCRUBBING && !matched && !k_fd[d] -> x_state[d] = UNKNOWN; x_region[d] = 0
		:: else -> x_state[d] = DIFFERED; x_region[d] = 0
		fi;
		result = 255; matched = false; k_scrubbing = false; d = 0 }

	:: d_step { kills > 0 -> kills--; crashed = true }; goto crash
	od;

create:
	skip;
	d_step {
		place_lanes(c);
		if
		:: !enough -> move_extents(c, IN_USE, IN_USE, FREE)
		:: else -> r_state[c] = CREATING
		fi
	};
	if
	:: atomic { !enough -> k2c[c]!NO_SPACE }
	:: else ->
		may_crash();
		/* the enclave makes the key, and hands it to the client itself */
		atomic { k_key[c] = true; c_key[c] = true };
		may_crash();
		r_wrap[c] = true;
		may_crash();
		r_state[c] = LIVE;
		may_crash();
		k2c[c]!GOOD
	fi;
	goto done

release: /* of whom it is: session_region */
	if
	:: r_state[c] == LIVE ->
		begin_release(c);
#ifndef BUG_NO_WAITER
		k_waiter[c] = true
#endif
	:: else -> k2c[c]!REFUSED
	fi;
	goto done

dead:
	if
	:: r_state[c] == LIVE -> begin_release(c)
	:: else
	fi;
	goto done

replace: /* handlers_replace: check_given_up, place_again */
	skip;
	d_step {
		look(d);
		if
		:: r_state[c] != LIVE -> state = 1
		:: r_state[c] == LIVE && k_state[d] == ONLINE && x_state[d] == IN_USE && HAS(c, d) -> state = 2
		:: else ->
			if
			:: HAS(c, d) && x_state[d] == IN_USE -> x_state[d] = SET_ASIDE
			:: else
			fi;
			place_lanes(c);
			state = (enough -> 0 : 3)
		fi
	};
	may_crash();
	if
	:: state == 0 -> k2c[c]!GOOD
	:: state == 1 -> k2c[c]!REFUSED
	:: state == 2 -> k2c[c]!BUSY
	:: state == 3 -> k2c[c]!NO_SPACE
	fi;
	goto done

resume: /* the same process, a region that lives: session_region, owners_may_resume */
	if
#ifdef BUG_RESUME
	:: true -> k2c[c]!GOOD
#else
	:: d == c && r_state[d] == LIVE -> k2c[c]!GOOD
	:: else -> k2c[c]!REFUSED
#endif
	fi;
	goto done

extents: /* handlers_extents; the client looks at what was told before (service_take_messages) */
	if
	:: d_step { r_state[d] == LIVE ->
		l_n = 0;
		do
		:: l_n < LANES ->
			m = 0; d_n = 0;
			do
			:: d_n < DEVICES ->
				if
				:: x_state[d_n] == IN_USE && HAS(d, d_n) && x_lane[d_n] == l_n -> m = d_n + 1
				:: else
				fi;
				d_n++
			:: else -> break
			od;
			answer[LANE(c, l_n)] = m;
			l_n++
		:: else -> break
		od;
		d_n = 0; l_n = 0; m = 0 };
		k2c[c]!GOOD
	:: else -> k2c[c]!REFUSED
	fi;
	goto done

finish: /* the receipt */
	assert(!k_key[c] && !r_wrap[c]);
	may_crash();
	atomic {
		r_state[c] = NONE;
		if
		:: k_waiter[c] && k_session[c] -> k_waiter[c] = false; k2c[c]!GOOD
		:: else
		fi
	};
	goto done

done:	skip;
	d_step { c = 0; d = 0; state = 0; m = 0; enough = false; good = false };
	goto end;

crash:	skip;
	d_step {
		k_up = false; h_connected = false; k_scrubbing = false; job = 255; result = 255; matched = false;
		do :: h2k?_, _, _, _ :: empty(h2k) -> break od;
		do :: k2h?_, _, _ :: empty(k2h) -> break od;
		d_n = 0;
		do
		:: d_n < DEVICES -> k_state[d_n] = ABSENT; k_fd[d_n] = false; k_seen[d_n] = false; k_fresh[d_n] = false; d_n++
		:: else -> break
		od;
		c_n = 0;
		do
		:: c_n < CLIENTS ->
			k_key[c_n] = false; k_session[c_n] = false; k_watched[c_n] = false; k_waiter[c_n] = false;
			do :: c2k[c_n]?_, _ :: empty(c2k[c_n]) -> break od;
			do :: k2c[c_n]?_ :: empty(k2c[c_n]) -> break od;
			d_n = 0;
			do
			:: d_n < DEVICES -> c_news[AT(c_n, d_n)] = false; c_told[AT(c_n, d_n)] = 0; d_n++
			:: else -> break
			od;
			c_n++
		:: else -> break
		od;
		c_n = 0; d_n = 0; l_n = 0; found = false; crashed = false; c = 0; d = 0; state = 0; m = 0; enough = false; good = false
	};
	/* the start: extents_restart, owners_start */
	d_step {
		do
		:: d_n < DEVICES ->
			if
#ifndef BUG_NO_RESTART
			:: x_state[d_n] == SCRUBBING -> x_state[d_n] = (x_region[d_n] == 0 -> UNKNOWN : RELEASING)
#endif
			:: else
			fi;
			d_n++
		:: else -> break
		od;
		d_n = 0
	};
	c = 0;
	do
	:: c < CLIENTS ->
		if
#ifdef BUG_SILENCE
		:: r_state[c] == LIVE -> begin_release(c) /* who is silent is taken for dead */
#else
		:: r_state[c] == LIVE && c_alive[c] -> k_watched[c] = true
		:: r_state[c] == LIVE && !c_alive[c] -> begin_release(c)
#endif
		:: r_state[c] == CREATING -> /* releases_undo: nobody was told its places */
			d_step { move_extents(c, IN_USE, IN_USE, FREE); r_state[c] = NONE; r_wrap[c] = false }
		:: r_state[c] == ENDING -> begin_release(c)
		:: else
		fi;
		c++
	:: else -> break
	od;
	atomic { c = 0; k_up = true };
	goto end
}

/* scrub.c: the thread overwrites and reads back; with its daemon it ends */
proctype scrubber()
{
end:	do
	:: d_step { job != 255 ->
		/* never under a region that uses it */
		assert(x_state[job] != IN_USE || !file[job]);
		matched = file[job];
		if
		:: file[job] -> holds[job] = 0
		:: else
		fi;
		result = job; job = 255 }
	od
}

/* ---- hotplugd: the table of devstate.c ---- */

#define CHANGED(d) (!file[d] || mark[d] != h_mark[d])

inline h_step(hd, hstate)
{
	h_state[hd] = hstate;
	if
	:: h_connected -> h2k!STATE, hd, hstate, h_mark[hd]
	:: else
	fi
}

/* of one device: found (and attest), removed, removed from quarantine, connected again (attested again, or its state told again) */
#define HOTPLUG(d) \
	:: atomic { h_up && h_connected && file[d] && nfull(h2k) && (h_state[d] == ABSENT || h_state[d] == LOST) && len(h2k) < 2 * DEVICES - 1 -> \
		h_mark[d] = mark[d]; h_step(d, ATTESTING); h2k!ATTEST, d, 0, 0 } \
	:: atomic { h_up && nfull(h2k) && CHANGED(d) && (h_state[d] == ATTESTING || h_state[d] == ONLINE || h_state[d] == SUSPECT) -> h_step(d, LOST) } \
	:: atomic { h_up && nfull(h2k) && CHANGED(d) && h_state[d] == QUARANTINED -> h_step(d, ABSENT) } \
	:: atomic { h_up && h_connected && !CHANGED(d) && h_again[d] && len(h2k) < 2 * DEVICES - 1 -> \
		h_again[d] = false; \
		if \
		:: h_state[d] == ATTESTING || h_state[d] == ONLINE || h_state[d] == QUARANTINED -> h_step(d, ATTESTING); h2k!ATTEST, d, 0, 0 \
		:: else -> h_step(d, h_state[d]) \
		fi }

proctype hotplugd()
{
	byte d, d_h;
	bool good;

end:	do
	:: atomic { k2h?VERDICT, d, good ->
		if
		:: nfull(h2k) ->
			if
			:: h_state[d] == ATTESTING && good -> h_step(d, ONLINE)
			:: h_state[d] == ATTESTING && !good -> h_step(d, QUARANTINED)
			:: h_state[d] == ONLINE && !good -> h_step(d, SUSPECT)
			:: else
			fi
		fi;
		d = 0; good = false }
	/* notify.c: connected. Every device that is there is attested again. */
	:: d_step { h_up && !h_connected && k_up ->
		h_connected = true; d_h = 0;
		do
		:: d_h < DEVICES -> h_again[d_h] = h_state[d_h] != ABSENT; d_h++
		:: else -> break
		od;
		d_h = 0 }
	HOTPLUG(0)
#if DEVICES > 1
	HOTPLUG(1)
#endif
#if DEVICES > 2
	HOTPLUG(2)
#endif
#if BADS > 0
	/* evidence is renewed */
	:: atomic { h_up && h_connected && h_state[0] == ONLINE && bads > 0 && empty(h2k) -> h2k!ATTEST, 0, 0, 0 }
#endif
	od
}

/* ---- a client: libsecpool's service (lib/service.c, lib/loss.c, lib/places.c), its workers folded into it ---- */

/* take_device */
inline take_news(nd)
{
	if
	:: c_news[AT(c, nd)] ->
		c_news[AT(c, nd)] = false;
		if
		:: c_told[AT(c, nd)] == 0 || (c_mark[AT(c, nd)] != 0 && c_mark[AT(c, nd)] != c_told[AT(c, nd)]) -> c_gone[AT(c, nd)] = c_mark[AT(c, nd)]
		:: else
		fi;
		if
		:: c_told[AT(c, nd)] != 0 && WHOLE(nd) -> c_mark[AT(c, nd)] = c_told[AT(c, nd)] /* else its media are too short: not mapped */
		:: else
		fi;
		c_told[AT(c, nd)] = 0
	:: else
	fi
}

inline take_all_news()
{
	n = 0;
	do
	:: n < DEVICES -> take_news(n); n++
	:: else -> break
	od;
	n = 0
}

/* loss.c, strike: of all that is known to be gone. The last copy of what was there: it is told. */
inline strike()
{
	n = 0;
	do
	:: n < LANES ->
		if
		:: c_valid[LANE(c, n)] && !USABLE(c, n) ->
			c_valid[LANE(c, n)] = false;
#if LANES > 1
			if
			:: !c_valid[LANE(c, 1 - n)] -> c_reported[c] = true
			:: else
			fi
#else
			c_reported[c] = true
#endif
		:: else
		fi;
		n++
	:: else -> break
	od;
	n = 0
}

/* A request and its answer: keyclient_call. `answer` is REFUSED when keymgrd went away. */
inline call(what, argument)
{
	c_asks[c] = true;
	if
	:: atomic { k_session[c] -> c2k[c]!what, argument };
		if
		:: k2c[c]?got
		:: !k_session[c] -> got = REFUSED
		fi
	:: atomic { else -> got = REFUSED }
	fi;
	c_asks[c] = false
}

/* region_read_places: what was told first, then the words, then the new placement */
inline read_places(whose)
{
	call(EXTENTS, whose);
	if
	:: d_step { got == GOOD ->
		take_all_news();
		strike();
		late = false;
		do
		:: n < LANES ->
			c_place[LANE(c, n)] = 0;
			if
			:: answer[LANE(c, n)] != 0 && c_mark[AT(c, answer[LANE(c, n)] - 1)] != 0 ->
				c_place[LANE(c, n)] = PLACE(answer[LANE(c, n)] - 1, c_mark[AT(c, answer[LANE(c, n)] - 1)])
			:: else
			fi;
			answer[LANE(c, n)] = 0;
			n++
		:: else -> break
		od;
		n = 0 }
	:: else
	fi
}

/* A store to a lane's place: by its mapping, which reaches whatever lies in the same file now. */
inline store(sl)
{
	d_step {
		if
		:: file[PDEV(c_place[LANE(c, sl)])] ->
			/* no extent is in use by two regions: nobody else's, nor free */
			assert(x_region[PDEV(c_place[LANE(c, sl)])] == c + 1);
			holds[PDEV(c_place[LANE(c, sl)])] = c + 1;
			c_valid[LANE(c, sl)] = true
		:: else -> c_gone[AT(c, PDEV(c_place[LANE(c, sl)]))] = PMARK(c_place[LANE(c, sl)]) /* SIGBUS */
		fi
	}
}

#define LOST_LANE(l) (c_place[LANE(c, l)] != 0 && !USABLE(c, l))
#if LANES > 1
#define FIRST_LOST (LOST_LANE(0) -> PDEV(c_place[LANE(c, 0)]) : PDEV(c_place[LANE(c, 1)]))
#define ANY_LOST   (LOST_LANE(0) || LOST_LANE(1))
#else
#define FIRST_LOST PDEV(c_place[LANE(c, 0)])
#define ANY_LOST   LOST_LANE(0)
#endif
#define UNHANDLED  (ANY_LOST && c_handled[AT(c, FIRST_LOST)] < PMARK(c_place[LANE(c, (LOST_LANE(0) -> 0 : LANES - 1))]))

#ifdef BUG_BUSY
#define AS_GIVEN(reply) false
#else
#define AS_GIVEN(reply) (reply == BUSY)
#endif

/* loss.c, replace. What BUSY says: the region has working space there already, of which it was not told. */
inline replace_lost()
{
	away = FIRST_LOST;
	call(REPLACE, away);
	away = 0;
	if
	:: got == GOOD || got == NO_SPACE || AS_GIVEN(got) -> read_places(c)
	:: else
	fi
}

proctype client(byte c)
{
	mtype got;
	byte n, away;
	bool late, stays;

	/* one that stays never ends by itself: what it waits for must come */
	if
	:: stays = true
	:: stays = false
	fi;
	/* secpool_open */
	d_step { k_up -> k_session[c] = true; k_watched[c] = true;
		do
		:: n < DEVICES -> c_mark[AT(c, n)] = (k_state[n] == ONLINE && WHOLE(n) -> x_mark[n] : 0); n++
		:: else -> break
		od;
		n = 0 };
	/* region.c, run_create */
	call(CREATE, 0);
	if
	:: got == GOOD -> read_places(c)
	:: else
	fi;
	if
	:: got != GOOD -> goto ended
	:: got == GOOD && (c_place[LANE(c, 0)] == 0 || c_place[LANE(c, LANES - 1)] == 0) -> goto release /* a device went meanwhile */
	:: else -> c_serves[c] = true
	fi;

endserves:
	do
	/* workers: the first write, then what rebuild and later writes bring to a lane */
	:: USABLE(c, 0) && !c_valid[LANE(c, 0)] -> store(0)
#if LANES > 1
	:: USABLE(c, 1) && !c_valid[LANE(c, 1)] -> store(1)
#endif
	/* a place that is used meets the loss by itself (SIGBUS); a store through an old mapping may go on until then (once: another is the same) */
	:: atomic { USABLE(c, 0) && c_valid[LANE(c, 0)] && !THERE(c_place[LANE(c, 0)]) && !late -> late = true }; store(0)
	/* service_take_messages */
	:: d_step { c_news[AT(c, 0)] -> take_news(0) }
#if DEVICES > 1
	:: d_step { c_news[AT(c, 1)] -> take_news(1) }
#endif
#if DEVICES > 2
	:: d_step { c_news[AT(c, 2)] -> take_news(2) }
#endif
	/* loss_scan, handle_loss */
	:: atomic { UNHANDLED -> c_handled[AT(c, FIRST_LOST)] = PMARK(c_place[LANE(c, (LOST_LANE(0) -> 0 : LANES - 1))]) };
		d_step { strike() };
		replace_lost()
	/* reconnect, loss_resume */
	:: d_step { !k_session[c] && k_up -> k_session[c] = true; k_watched[c] = true;
		do
		:: n < DEVICES ->
			if
			:: k_state[n] == ONLINE -> c_news[AT(c, n)] = true; c_told[AT(c, n)] = x_mark[n]
			:: else
			fi;
			n++
		:: else -> break
		od;
		n = 0 };
		call(RESUME, c);
		if
		:: got == GOOD && ANY_LOST -> replace_lost()
		:: else
		fi
#ifdef BUG_RESUME
	/* another process asks for the first client's region */
	:: c == 1 && k_session[c] && r_state[0] == LIVE ->
		call(RESUME, 0);
		if
		:: got == GOOD -> read_places(0)
		:: else
		fi
#endif
	:: !stays -> goto release
	:: !stays -> goto ended
	od;

release: /* nobody of ours is at work on it from here on */
	skip;
	d_step { c_serves[c] = false; n = 0;
		do
		:: n < LANES -> c_place[LANE(c, n)] = 0; c_valid[LANE(c, n)] = false; n++
		:: else -> break
		od;
		n = 0 };
	call(RELEASE, 0);
ended:	/* it ends, or is killed: its stores with it */
	skip;
	d_step { c_serves[c] = false; c_key[c] = false; n = 0;
		do
		:: n < LANES -> c_place[LANE(c, n)] = 0; c_valid[LANE(c, n)] = false; n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < DEVICES -> c_news[AT(c, n)] = false; c_told[AT(c, n)] = 0; c_mark[AT(c, n)] = 0; c_gone[AT(c, n)] = 0; c_handled[AT(c, n)] = 0; n++
		:: else -> break
		od;
		n = 0;
		c_alive[c] = false; k_session[c] = false;
		do :: c2k[c]?_, _ :: empty(c2k[c]) -> break od;
		do :: k2c[c]?_ :: empty(k2c[c]) -> break od }
}

/* ---- what goes wrong ---- */

proctype nemesis()
{
	byte pulls = PULLS, hkills = HKILLS;

end:	do
	:: atomic { pulls > 0 && file[0] -> file[0] = false; pulls-- }
	/* the same file again, empty: an old mapping of it reaches it */
	:: d_step { !file[0] -> file[0] = true; mark[0]++; holds[0] = 0 }
	/* kill -9 of hotplugd; another is started */
	:: d_step { hkills > 0 -> hkills--; h_connected = false;
		do :: h2k?_, _, _, _ :: empty(h2k) -> break od;
		do :: k2h?_, _, _ :: empty(k2h) -> break od;
		h_state[0] = ABSENT; h_mark[0] = 0; h_again[0] = false;
#if DEVICES > 1
		h_state[1] = ABSENT; h_mark[1] = 0; h_again[1] = false;
#endif
#if DEVICES > 2
		h_state[2] = ABSENT; h_mark[2] = 0; h_again[2] = false
#endif
		}
	od
}

init {
	byte n;

	d_step {
		do
		:: n < DEVICES ->
			file[n] = true; mark[n] = 1; x_state[n] = FREE; x_mark[n] = 1; k_state[n] = ONLINE; k_fd[n] = true; k_seen[n] = true;
			k_fresh[n] = true; h_state[n] = ONLINE; h_mark[n] = 1; n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < CLIENTS -> c_alive[n] = true; n++
		:: else -> break
		od;
		n = 0
	};
	atomic {
		run keymgrd(); run scrubber(); run hotplugd(); run nemesis(); run client(0);
#if CLIENTS > 1
		run client(1)
#endif
	}
}

/* every pull ends in failover or in a loss that is told: no word names what is gone for ever */
#define HIT (c_serves[0] && c_valid[0] && !THERE(c_place[0]))
ltl failover { [] (HIT -> <> !HIT) }

/* who has been given a new place is told of it in the end */
#define GIVEN(d) (c_serves[0] && x_state[d] == IN_USE && x_region[d] == 1 && x_lane[d] == 0 && k_state[d] == ONLINE && x_mark[d] == mark[d] && file[d])
#define STALE    (GIVEN(0) && c_place[0] != PLACE(0, mark[0]))
ltl replaced { [] <> !STALE }

/* who asks is answered, or sees that keymgrd is gone */
ltl answered { [] (c_asks[0] -> <> !c_asks[0]) }

/* what was released is overwritten, or its device is away */
ltl scrubbed { [] <> !(x_state[0] == RELEASING || x_state[0] == SCRUBBING) }
