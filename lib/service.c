/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/service.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/descriptors.h"
#include "lib/fault.h"
#include "lib/giveup.h"
#include "lib/loss.h"
#include "lib/prober.h"
#include "lib/move.h"
#include "lib/rebuild.h"
#include "lib/refill.h"
#include "lib/region.h"
#include "lib/rotate.h"
#include "lib/seal.h"
#include "lib/signals.h"
#include "lib/snapshot.h"

/* How often a lost connection is tried again. */
#define RETRY_NS (100ull * 1000000)
/* The same after a refusal by policy. */
#define REFUSED_RETRY_NS (2ull * CLOCK_NS_PER_S)

static void wake(struct service *service)
{
	uint64_t one = 1;

	if (write(service->wake_fd, &one, sizeof one) < 0)
		return; /* the counter is full: it is awake */
}

void service_wake(struct worker *worker)
{
	if (worker->guest)
		signals_wake_service(worker->pool->service->thread);
	else
		wake(worker->pool->service);
}

void service_look(struct service *service)
{
	if (!atomic_exchange(&service->look, true))
		wake(service);
}

void service_report(struct worker *worker, const struct service_report *report)
{
	struct service *service = worker->pool->service;

	pthread_mutex_lock(&service->lock);
	if (service->report_count < SERVICE_REPORTS_MOST)
		service->reports[service->report_count++] = *report;
	pthread_mutex_unlock(&service->lock);
	service_wake(worker);
}

void service_post(struct worker *worker, const struct secpool_event *event)
{
	struct service *service = worker->pool->service;

	pthread_mutex_lock(&service->lock);
	if (service->posted_count < SERVICE_POSTED_MOST)
		service->posted[service->posted_count++] = *event;
	else
		service->posted_lost = true;
	pthread_mutex_unlock(&service->lock);
	service_wake(worker);
}

void service_tell_posted(struct service *service)
{
	struct worker *worker = pool_service_worker(service->pool);
	struct secpool_event events[SERVICE_POSTED_MOST];
	unsigned count;
	bool lost;

	pthread_mutex_lock(&service->lock);
	count = service->posted_count;
	lost = service->posted_lost;
	memcpy(events, service->posted, count * sizeof *events);
	service->posted_count = 0;
	service->posted_lost = false;
	pthread_mutex_unlock(&service->lock);
	for (unsigned i = 0; i < count; i++)
		loss_tell(worker, &events[i]);
	if (lost)
		loss_tell(worker, &(struct secpool_event){.type = SECPOOL_EVENT_OVERFLOW});
}

static void complete(struct service_call *call, enum secpool_error error)
{
	call->error = error;
	snprintf(call->detail, sizeof call->detail, "%s", error ? err_detail() : "");
	/* release: the result before; the caller may be gone from then on, its place on the stack is only an address */
	atomic_store_explicit(&call->done, 1, memory_order_release);
	spinlock_futex_wake(&call->done, 1);
}

static void run_calls(struct service *service)
{
	for (;;) {
		struct service_call *call;
		pthread_mutex_lock(&service->lock);
		call = service->calls;
		if (call)
			service->calls = call->next;
		pthread_mutex_unlock(&service->lock);
		if (!call)
			return;
		err_clear();
		call->run(service->pool, call);
		if (call->deferred) {
			call->next = service->waiting;
			service->waiting = call;
		} else {
			complete(call, call->error);
		}
		snapshot_serve(service->pool); /* it may be a fork's */
	}
}

/* The answer to a deferred call, if somebody waits for it. */
static void end_deferred(struct service *service, const struct msg *msg)
{
	for (struct service_call **at = &service->waiting; *at; at = &(*at)->next) {
		struct service_call *call = *at;
		if (call->number != msg->number)
			continue;
		*at = call->next;
		complete(call, region_released(call, msg));
		return;
	}
}

/* Keymgrd is gone: what it was asked for will not come. */
static void fail_deferred(struct service *service)
{
	struct msg gone = {.type = MSG_REPLY};

	gone.u.reply.error = SECPOOL_E_DAEMON_GONE;
	MSG_SET(gone.u.reply.detail, "keymgrd went away before it answered");
	while (service->waiting) {
		struct service_call *call = service->waiting;
		service->waiting = call->next;
		complete(call, region_released(call, &gone));
	}
}

/* Watched from now on, and the program is told. On error the device is dropped. */
static enum secpool_error add_device(struct secpool *pool, struct device *device)
{
	struct secpool_event event = {.type = SECPOOL_EVENT_DEVICE_ONLINE};
	enum secpool_error error = prober_watch(pool->service->prober, device);

	if (error) {
		device_drop(device);
		return error;
	}
	device->older = atomic_load(&pool->devices);
	atomic_store(&pool->devices, device);
	memcpy(event.device, device->id, sizeof event.device);
	events_add(&pool->events, &event);
	return SECPOOL_OK;
}

enum secpool_error service_take_again(struct secpool *pool, const struct device *old)
{
	struct device *device;
	enum secpool_error error = device_again(old, &device);

	return error ? error : add_device(pool, device);
}

static void take_device(
	struct secpool *pool, const struct msg_device *info, struct sock_extra *extra)
{
	struct device *device;
	int fd = sock_take_fd(extra, 0);

	for (device = atomic_load(&pool->devices); device; device = device->older) {
		if (device->slot != info->slot)
			continue;
		if (info->state == MSG_DEVICE_LOST || info->state == MSG_DEVICE_ABSENT ||
			(info->state == MSG_DEVICE_ONLINE && device->media != info->media)) {
			device_give_up(device, MSG_CAUSE_REMOVED);
		} else if (device->media == info->media && device_usable(device)) {
			atomic_store(
				&device->distrusted, info->state != MSG_DEVICE_ONLINE &&
							     info->state != MSG_DEVICE_DRAINING);
			atomic_store(&device->draining, info->state == MSG_DEVICE_DRAINING);
			os_close(&fd);
			return; /* known */
		}
		device->retry = info->state != MSG_DEVICE_ONLINE;
	}
	/* one that can't be used is as if it were not there: keymgrd tells when it is another */
	if (info->state == MSG_DEVICE_ONLINE && fd >= 0 &&
		device_map(info, fd, &device) == SECPOOL_OK)
		(void)!add_device(pool, device);
	os_close(&fd);
	atomic_store(&pool->service->look, true); /* one may be gone: loss_scan looks at all */
}

static void daemon_event(struct secpool *pool, enum secpool_event_type type)
{
	struct secpool_event event = {.type = type};

	events_add(&pool->events, &event);
}

static void disconnected(struct service *service)
{
	keyclient_close(&service->client);
	fail_deferred(service);
	if (service->retry_ns == 0) {
		daemon_event(service->pool, SECPOOL_EVENT_DAEMON_GONE);
		service->gone_ns = clock_now_ns();
	}
	service->retry_ns = clock_now_ns() + RETRY_NS;
}

void service_renew_session(struct service *service)
{
	if (service->waiting || service->retry_ns != 0)
		return;
	keyclient_close(&service->client);
	service->renewing = true;
	service->gone_ns = service->retry_ns = clock_now_ns();
}

/* A connection could not be made. */
static void still_gone(struct service *service)
{
	if (service->renewing)
		daemon_event(service->pool, SECPOOL_EVENT_DAEMON_GONE);
	service->renewing = false;
}

void service_take_messages(struct service *service)
{
	for (;;) {
		struct sock_extra extra;
		struct msg msg;
		enum secpool_error error = keyclient_next(&service->client, &msg, &extra);
		if (error == SECPOOL_E_NO_EVENT)
			return;
		if (error) {
			if (service->retry_ns == 0)
				disconnected(service);
			return;
		}
		if (msg.type == MSG_DEVICE)
			take_device(service->pool, &msg.u.device, &extra);
		else if (msg.type == MSG_REGION_RENEW)
			rotate_want(service->pool, &msg.u.region_renew);
		else if (msg.type == MSG_REGION_ENDED)
			seal_ended(service->pool, msg.u.region_ended.region);
		else if (msg.type == MSG_REGION_SHIFT)
			move_want(service->pool, &msg.u.region_shift);
		else if (msg.number != 0)
			end_deferred(service, &msg);
		sock_close_fds(&extra);
	}
}

static void send_reports(struct service *service)
{
	for (;;) {
		struct service_report report;
		struct msg msg;
		pthread_mutex_lock(&service->lock);
		if (service->report_count == 0) {
			pthread_mutex_unlock(&service->lock);
			return;
		}
		report = service->reports[--service->report_count];
		pthread_mutex_unlock(&service->lock);
		msg = (struct msg){.type = report.type};
		if (report.type == MSG_REGION_LOST)
			msg.u.region_lost = report.u.region_lost;
		else
			msg.u.device_report = report.u.device_report;
		if (keyclient_send(&service->client, &msg, NULL) != SECPOOL_OK)
			return; /* nobody is there to be told */
	}
}

/* After keymgrd was restarted: a new session of the same process takes its regions over. */
static void reconnect(struct service *service)
{
	struct secpool *pool = service->pool;
	int faultfd = -1;

	service->retry_ns = clock_now_ns() + RETRY_NS;
	if (keyclient_open(&service->client, service->socket_path, pool->tenant, pool->local_bytes,
		    &faultfd) != SECPOOL_OK) {
		still_gone(service);
		/* a new policy: what it takes back ends at once; a later one may allow new regions */
		if (service->client.refused) {
			giveup_all(pool);
			service->retry_ns = clock_now_ns() + REFUSED_RETRY_NS;
		}
		return;
	}
	os_close(&faultfd);
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++) {
		struct msg request = {.type = MSG_REGION_RESUME};
		struct secpool_region *region = pool->regions[slot];
		enum secpool_error error;
		if (!region || atomic_load(&region->ended))
			continue;
		request.u.region_resume.region = region->id;
		error = keyclient_call(&service->client, &request, MSG_REPLY, NULL);
		if (!error)
			loss_resume(pool, region);
		else if (error == SECPOOL_E_NOT_FOUND || error == SECPOOL_E_KEY_GONE ||
			 error == SECPOOL_E_SESSION_EXPIRED) /* it is not ours any more */
			giveup_region(pool, region);
	}
	if (service->client.fd < 0)
		return;
	service->retry_ns = 0;
	if (!service->renewing)
		daemon_event(pool, SECPOOL_EVENT_DAEMON_BACK);
	service->renewing = false;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

/* due_ns: when there is work to do besides, 0: none. */
static void wait_for_work(struct service *service, uint64_t due_ns)
{
	struct pollfd fds[2] = {
		{.fd = service->wake_fd, .events = POLLIN},
		{.fd = service->client.fd, .events = POLLIN},
	};
	uint64_t drained, now = clock_now_ns(), due = earlier(due_ns, service->retry_ns);
	struct timespec until = {0};

	if (due > now) {
		until.tv_sec = (time_t)((due - now) / CLOCK_NS_PER_S);
		until.tv_nsec = (long)((due - now) % CLOCK_NS_PER_S);
	}
	if (ppoll(fds, 2, due != 0 ? &until : NULL, NULL) < 0)
		return; /* interrupted: look at everything */
	if (fds[0].revents && read(service->wake_fd, &drained, sizeof drained) < 0)
		return;
}

/* The program's threads move pages too: they get duplicates, in their own table. */
static enum secpool_error give_descriptors(struct service *service)
{
	struct msg msg = {.type = MSG_REPLY};
	int fds[] = {service->pool->uffd.fd, service->pool->uffd.empty_fd};
	enum secpool_error error = sock_send(service->end, &msg, fds, 2, 0);

	os_close(&service->end);
	return error;
}

static enum secpool_error take_descriptors(struct service *service)
{
	struct uffd *uffd = &service->pool->program_uffd;
	struct sock_extra extra;
	struct msg msg;
	enum secpool_error error = sock_receive(service->program_end, &msg, &extra, 0);

	if (error)
		return error;
	*uffd = service->pool->uffd;
	uffd->fd = sock_take_fd(&extra, 0);
	uffd->empty_fd = sock_take_fd(&extra, 1);
	sock_close_fds(&extra);
	return SECPOOL_OK;
}

static enum secpool_error set_up(struct service *service)
{
	struct secpool *pool = service->pool;
	int *const owned[] = {&service->wake_fd, &pool->events.service_fd, &service->end};
	enum secpool_error error = descriptors_own(owned, sizeof owned / sizeof *owned);

	if (error) { /* they are still the program's */
		service->wake_fd = pool->events.service_fd = service->end = -1;
		return error;
	}
	error = keyclient_open(&service->client, service->socket_path, pool->tenant,
		pool->local_bytes, &service->faultfd);
	if (!error) {
		pool->allow_unlocked = service->client.session.allow_unlocked != 0;
		signals_set_window(
			service->client.session.window_base, service->client.session.window_bytes);
		error = uffd_open(&pool->uffd, service->faultfd,
			pool->fault_mode == SECPOOL_FAULT_INLINE ? UFFD_INLINE : 0);
	}
	if (!error)
		error = prober_start(pool, service->client.session.suspect_after_ms,
			service->client.session.gone_after_ms, &service->prober);
	if (!error)
		error = give_descriptors(service);
	if (!error)
		error = fault_start(pool);
	return error;
}

static void tear_down(struct service *service)
{
	struct msg bye = {.type = MSG_SESSION_CLOSE};

	fault_stop(service->pool);
	prober_stop(service->prober);
	uffd_close(&service->pool->uffd);
	os_close(&service->end);
	if (service->client.fd >= 0) {
		bye.u.session_close.session = service->client.session.session;
		(void)!keyclient_send(&service->client, &bye, NULL);
	}
	keyclient_close(&service->client);
	os_close(&service->faultfd);
	os_close(&service->wake_fd);
	os_close(&service->pool->events.service_fd);
}

static uint64_t grace_ns(const struct service *service)
{
	return (uint64_t)service->client.session.grace_ms * CLOCK_NS_PER_MS;
}

static void *service_main(void *arg)
{
	struct service *service = arg;
	struct secpool *pool = service->pool;
	enum secpool_error error;
	uint64_t due_ns;

	error = set_up(service);
	signals_enter_service(service->wake_fd);
	pthread_mutex_lock(&service->lock);
	service->start_error = error;
	snprintf(service->start_detail, sizeof service->start_detail, "%s", err_detail());
	service->started = true;
	pthread_cond_broadcast(&service->begun);
	pthread_mutex_unlock(&service->lock);
	while (!error && !atomic_load(&pool->stopping)) {
		service_take_messages(service);
		service_tell_posted(service);
		if (atomic_exchange(&service->look, false))
			loss_scan(pool);
		run_calls(service);
		send_reports(service);
		if (service->client.fd < 0 && service->retry_ns == 0)
			disconnected(service);
		if (service->retry_ns != 0 && clock_now_ns() >= service->retry_ns)
			reconnect(service);
		/* longer than the policy allows: nobody lets us use the regions any more */
		if (service->retry_ns != 0 && clock_now_ns() - service->gone_ns > grace_ns(service))
			giveup_all(pool);
		if (service->client.kept)
			continue;
		due_ns = earlier(earlier(loss_fill(pool), rebuild_some(pool)),
			earlier(refill_expire(pool), earlier(move_some(pool), rotate_some(pool))));
		wait_for_work(service, atomic_load(&service->look) ? clock_now_ns() : due_ns);
	}
	tear_down(service);
	return NULL;
}

static void service_end(struct secpool *pool)
{
	atomic_store(&pool->stopping, true);
	signals_wake_service(pool->service->thread);
	pthread_join(pool->service->thread, NULL);
}

static void free_service(struct service *service)
{
	pthread_mutex_destroy(&service->lock);
	pthread_cond_destroy(&service->begun);
	free(service);
}

/* Waits until the service has set itself up, and takes what it gives to the program's threads. On error the thread has ended. */
static enum secpool_error await_begin(struct service *service)
{
	enum secpool_error error;

	pthread_mutex_lock(&service->lock);
	while (!service->started)
		pthread_cond_wait(&service->begun, &service->lock);
	pthread_mutex_unlock(&service->lock);
	error = service->start_error;
	if (error) {
		pthread_join(service->thread, NULL);
		return err_set(error, "%s", service->start_detail);
	}
	error = take_descriptors(service);
	if (error)
		service_end(service->pool);
	return error;
}

enum secpool_error service_start(struct secpool *pool, const char *socket_path)
{
	struct service *service = calloc(1, sizeof *service);
	int programs_fd = -1, ends[2] = {-1, -1};
	enum secpool_error error;

	if (!service)
		return os_error("service");
	service->pool = pool;
	service->faultfd = service->wake_fd = service->program_end = service->end = -1;
	keyclient_init(&service->client, pool->read_only);
	snprintf(service->socket_path, sizeof service->socket_path, "%s", socket_path);
	pthread_mutex_init(&service->lock, NULL);
	pthread_cond_init(&service->begun, NULL);
	pool->service = service;
	error = os_eventfd(&service->wake_fd);
	if (!error)
		error = sock_pair(ends);
	if (!error) {
		service->program_end = ends[0];
		service->end = ends[1];
	}
	programs_fd = service->wake_fd;
	if (!error)
		error = signals_start_thread(&service->thread, service_main, service);
	if (!error)
		error = await_begin(service);
	os_close(&programs_fd); /* the service has its own */
	os_close(&ends[1]);
	os_close(&service->program_end);
	if (error) {
		pool->service = NULL;
		free_service(service);
	}
	return error;
}

void service_stop(struct secpool *pool)
{
	service_end(pool);
	/* a program that closed them may have given the numbers to files of its own */
	if (!atomic_load(&pool->program_broken))
		uffd_close(&pool->program_uffd);
	free_service(pool->service);
	pool->service = NULL;
}

enum secpool_error service_call(
	struct secpool *pool, void (*run)(struct secpool *, struct service_call *), void *arg)
{
	struct service *service = pool->service;
	enum secpool_error error;
	struct service_call call = {.run = run, .arg = arg, .error = SECPOOL_E_INTERNAL};
	struct service_call **end;
	sigset_t before;

	error = pool_check(pool);
	if (error)
		return error;
	signals_block(&before);
	pthread_mutex_lock(&service->lock);
	for (end = &service->calls; *end; end = &(*end)->next)
		;
	*end = &call;
	pthread_mutex_unlock(&service->lock);
	signals_restore(&before);
	signals_wake_service(service->thread);
	/* acquire: the result */
	while (!atomic_load_explicit(&call.done, memory_order_acquire))
		spinlock_futex_wait(&call.done, 0);
	if (call.error)
		return err_set(call.error, "%s", call.detail);
	return SECPOOL_OK;
}
