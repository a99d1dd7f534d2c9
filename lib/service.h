/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service thread: the pool's only user of the session with keymgrd, and the owner of the library's descriptor table.
 *
 * The library's threads have a descriptor table of their own (close_range(2) with CLOSE_RANGE_UNSHARE), so that a program which closes
 * descriptors, or daemonises, neither harms them nor is held up by them. A thread of the program therefore reaches the service
 * through memory, and wakes it by a SIGBUS sent to that thread alone, whose handler (signals.c) writes to the service's eventfd.
 */
#ifndef SECPOOL_SERVICE_H
#define SECPOOL_SERVICE_H

#include <limits.h>

#include "lib/keyclient.h"
#include "lib/pool.h"

enum { SERVICE_REPORTS_MOST = 1024, SERVICE_POSTED_MOST = 256 };

/* What keymgrd is told one way. */
struct service_report {
	uint32_t type; /* MSG_REGION_LOST, MSG_DEVICE_REPORT */
	union {
		struct msg_region_lost region_lost;
		struct msg_device_report device_report;
	} u;
};

/* Work for the service thread; embedded in the caller's stack frame. */
struct service_call {
	void (*run)(struct secpool *pool, struct service_call *call);
	void *arg;
	enum secpool_error error;
	char detail[ERR_DETAIL_BYTES];
	bool deferred;   /* run leaves it open: the answer `number` ends it */
	uint32_t number;
	_Atomic uint32_t done; /* a futex */
	struct service_call *next;
};

struct service {
	struct secpool *pool;
	pthread_t thread;
	int wake_fd;
	int faultfd;
	char socket_path[PATH_MAX];
	struct keyclient client;
	struct prober *prober;
	uint64_t retry_ns;      /* when to try to connect again */
	uint64_t gone_ns;       /* when the connection was lost */
	bool renewing;          /* it was ended by us, for a new session */
	uint64_t fill_ns;       /* when to ask again for places (loss_fill) */
	size_t plain_bytes;     /* the workers' share of the budget so far */
	int program_end, end;   /* by which the program's threads get userfaultfd: the program's end, the service's */

	/* Protects: calls, reports, posted, their counts, started. Held by threads of the program with all signals blocked: a fault's serving may want it */
	pthread_mutex_t lock;
	pthread_cond_t begun;
	struct service_call *calls;
	struct service_report reports[SERVICE_REPORTS_MOST];
	unsigned report_count;
	struct secpool_event posted[SERVICE_POSTED_MOST]; /* by guests */
	unsigned posted_count;
	bool posted_lost;
	struct service_call *waiting; /* deferred ones; the service's own */
	_Atomic bool look;      /* a worker met a device that is gone */
	enum secpool_error start_error;
	char start_detail[ERR_DETAIL_BYTES];
	bool started;
};

/* Starts the thread, connects, opens userfaultfd and starts the handler threads. On error nothing is left. */
enum secpool_error service_start(struct secpool *pool, const char *socket_path) MUST_USE;

/* Ends handlers and service; all regions are gone before. */
void service_stop(struct secpool *pool);

/*
 * Runs a function on the service thread and waits for its end; the result is call->error, with its sentence set for this thread.
 * Errors: SECPOOL_E_CLOSED in a child made by fork. Threads: the program's.
 */
enum secpool_error service_call(struct secpool *pool, void (*run)(struct secpool *, struct service_call *), void *arg) MUST_USE;

/* Takes in what keymgrd sent unasked: devices that came or went. Losses are handled later, in the service's loop. Threads: the service. */
void service_take_messages(struct service *service);

/* Wakes the service. Threads: workers. */
void service_wake(struct worker *worker);

/* A device is gone: the service is to look at all of them. Threads: the library's own. */
void service_look(struct service *service);

/* Uses a device again that was given up and answers in time, as a new incarnation. Errors: those of device_again and prober_watch. Threads: the service. */
enum secpool_error service_take_again(struct secpool *pool, const struct device *old) MUST_USE;

/*
 * The session is at its end, and gives no keys any more: it is ended, and a new one opened, which takes the regions over. Not while an answer to a release is waited for. Threads: the service.
 */
void service_renew_session(struct service *service);

/* Hands an event to the service, which tells it. Threads: guests. */
void service_post(struct worker *worker, const struct secpool_event *event);

/* Tells what was posted. Threads: the service, also before a region ends that may be named there. */
void service_tell_posted(struct service *service);

/* Queues a report for keymgrd; drops it when too many wait. Threads: workers. */
void service_report(struct worker *worker, const struct service_report *report);

#endif
