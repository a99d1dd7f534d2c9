/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device state table of DESIGN.md section 6, over enum msg_state: pure, no device is touched
 * here.
 *
 * device_step in device.c is the only writer of a device's state and carries out the action that
 * the table names. docs/states.md is made from this table (tests/unit/test_devstate.c, which also
 * walks every pair). Threads: any; no state.
 */
#ifndef SECPOOL_HOTPLUG_DEVSTATE_H
#define SECPOOL_HOTPLUG_DEVSTATE_H

#include "lib/base/err.h"
#include "lib/wire/msg.h"

enum devstate_event {
	DEVSTATE_FOUND,	   /* its media are there */
	DEVSTATE_ATTEST,   /* evidence is wanted: its TPM runs, an operator asks, the evidence grows
			      old */
	DEVSTATE_ACCEPTED, /* keymgrd's verdict is good */
	DEVSTATE_REFUSED,  /* keymgrd's verdict is bad */
	DEVSTATE_UNREACHABLE, /* no verdict: the TPM or keymgrd did not do its part */
	DEVSTATE_EXPIRED,     /* the evidence is too old and could not be renewed */
	DEVSTATE_ERRORS,      /* it does not keep what is written (health.h) */
	DEVSTATE_CONNECTED, /* a new connection to keymgrd: it knows nothing of earlier verdicts */
	DEVSTATE_DISCONNECTED, /* the connection to keymgrd ended */
	DEVSTATE_DRAIN,	       /* what it holds is to be moved elsewhere */
	DEVSTATE_DRAINED,      /* it holds nothing any more */
	DEVSTATE_CUT_OFF,      /* keymgrd gave up what it holds */
	DEVSTATE_REMOVED,      /* its media are gone */
	DEVSTATE_EVENTS,
};

enum devstate_action {
	DEVSTATE_DO_NOTHING,
	DEVSTATE_DO_START,   /* power its TPM */
	DEVSTATE_DO_ATTEST,  /* start the exchange of evidence, in place of one that runs */
	DEVSTATE_DO_ADMIT,   /* arrange for renewal before the evidence expires */
	DEVSTATE_DO_CONFINE, /* drop exchange and renewal: only an operator or a return brings it
				back */
	DEVSTATE_DO_RETRY,   /* ask for evidence again after a while */
	DEVSTATE_DO_ABANDON, /* drop the exchange that runs, and the verdict: who gave it may be
				gone */
	DEVSTATE_DO_STOP,    /* drop everything, close the media, stop its TPM */
	DEVSTATE_DO_TELL,    /* tell keymgrd the state, though it is the same */
	DEVSTATE_ACTIONS,
};

/*
 * What follows from an event in a state. Errors: SECPOOL_E_BUSY naming both when the table has no
 * such entry, or either is out of range; nothing is written then.
 */
enum secpool_error devstate_next(enum msg_state state, enum devstate_event event,
	enum msg_state *ret_next, enum devstate_action *ret_action) MUST_USE;

/* Names as in docs/states.md and the log ("removed", "start"); "?" when unknown. */
const char *devstate_event_name(enum devstate_event event);
const char *devstate_action_name(enum devstate_action action);

#endif
