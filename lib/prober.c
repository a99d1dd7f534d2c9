/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/prober.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/service.h"
#include "lib/signals.h"
#include "lib/spinlock.h"

/* Accesses of workers that one I/O thread takes at a time: more wait for a place. */
enum { PLACES = 4 };

/* The longest turn of the prober; how many turns a suspect device must have answered in time to be trusted again. */
enum { TURN_MOST_MS = 25, CALM_TURNS = 40 };

/* How often a waiting worker looks whether the device was given up, and how long an I/O thread's end is waited for. */
#define LOOK_NS (2ull * CLOCK_NS_PER_MS)
#define END_NS	(500ull * CLOCK_NS_PER_MS)

enum operation { READ, WRITE, LOOK_ALIVE };

enum place_state {
	PLACE_FREE = 0,
	PLACE_TAKEN = 1,     /* by a worker, who fills it in */
	PLACE_QUEUED = 2,    /* the I/O thread may begin */
	PLACE_RUNNING = 3,   /* the I/O thread's */
	PLACE_DONE = 4,	     /* the worker's again */
	PLACE_ABANDONED = 5, /* the worker is gone; the I/O thread frees it when its access ends */
};

struct access_place {
	_Atomic uint32_t state; /* a futex */
	enum operation operation;
	uint64_t offset;
	size_t bytes;
	uint8_t *buffer;
	enum secpool_error error;
};

struct prober_line {
	struct device *device; /* held */
	struct service *service;
	pthread_t thread;
	_Atomic bool stop, probe;
	_Atomic bool answered; /* to the last probe since the device was given up */
	uint64_t suspect_ns;   /* the first bound */
	_Atomic uint32_t work; /* a futex: counts what was given to it */
	_Atomic uint64_t turn; /* odd while it is in an access */
	_Atomic unsigned holders;
	uint8_t *memory; /* the places' buffers */
	struct access_place places[PLACES];
	/* the prober's own */
	uint64_t seen_turn;
	unsigned late_turns, calm_turns, back_turns;
};

struct prober {
	struct secpool *pool;
	pthread_t thread;
	_Atomic uint32_t stop; /* a futex */
	uint64_t turn_ns;
	unsigned suspect_turns, gone_turns;
};

static const size_t memory_bytes = (size_t)PLACES * PAGECIPHER_PAGE_BYTES_MOST;

/* ---- the I/O thread ---- */

static void drop_line(struct prober_line *line)
{
	if (atomic_fetch_sub(&line->holders, 1) > 1)
		return;
	syscall(SYS_munmap, line->memory, memory_bytes);
	device_drop(line->device);
	free(line);
}

static enum secpool_error carry_out(struct prober_line *line, struct access_place *place)
{
	struct device *device = line->device;

	/* a store that nobody waits for any more must not come late: the device may be used again */
	if (!device_usable(device))
		return SECPOOL_E_DEVICE_GONE;
	switch (place->operation) {
	case READ:
		return device_backend_read(device, place->offset, place->buffer, place->bytes);
	case WRITE:
		return device_backend_write(device, place->offset, place->buffer, place->bytes);
	case LOOK_ALIVE:
		return device_backend_alive(device) ? SECPOOL_OK : SECPOOL_E_DEVICE_GONE;
	}
	return SECPOOL_E_INTERNAL;
}

static bool step(struct access_place *place, uint32_t from, uint32_t to)
{
	return atomic_compare_exchange_strong(&place->state, &from, to);
}

static bool serve_place(struct prober_line *line, struct access_place *place)
{
	if (!step(place, PLACE_QUEUED, PLACE_RUNNING))
		return false;
	atomic_fetch_add(&line->turn, 1);
	place->error = carry_out(line, place);
	atomic_fetch_add(&line->turn, 1);
	if (step(place, PLACE_RUNNING, PLACE_DONE))
		spinlock_futex_wake(&place->state, 1);
	else
		atomic_store(&place->state, PLACE_FREE);
	return true;
}

static bool serve_all(struct prober_line *line)
{
	bool served = false;

	if (atomic_exchange(&line->probe, false)) {
		atomic_fetch_add(&line->turn, 1);
		if (device_usable(line->device))
			device_backend_alive(line->device);
		else
			atomic_store(&line->answered,
				device_backend_answers(line->device, line->suspect_ns));
		atomic_fetch_add(&line->turn, 1);
		served = true;
	}
	for (unsigned i = 0; i < PLACES && !atomic_load(&line->stop); i++)
		served = serve_place(line, &line->places[i]) || served;
	return served;
}

static void *line_main(void *arg)
{
	struct prober_line *line = arg;
	bool told = false;

	signals_enter_handler();
	while (!atomic_load(&line->stop)) {
		uint32_t work = atomic_load(&line->work);
		bool served = serve_all(line);

		if (!told && !atomic_load(&line->stop) && !device_usable(line->device)) {
			told = true;
			service_look(line->service);
		}
		if (!served)
			spinlock_futex_wait(&line->work, work);
	}
	drop_line(line);
	return NULL;
}

static void give_work(struct prober_line *line)
{
	atomic_fetch_add(&line->work, 1);
	spinlock_futex_wake(&line->work, 1);
}

enum secpool_error prober_watch(struct prober *prober, struct device *device)
{
	struct prober_line *line = calloc(1, sizeof *line);
	enum secpool_error error;
	void *memory;

	if (!line)
		return os_error("the I/O thread of %s", device->id);
	/* ciphertext; touched only when the device is suspect */
	memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		error = os_error("the I/O thread of %s", device->id);
		free(line);
		return error;
	}
	syscall(SYS_madvise, memory, memory_bytes, MADV_DONTFORK);
	line->device = device;
	line->service = prober->pool->service;
	line->memory = memory;
	line->suspect_ns = prober->suspect_turns * prober->turn_ns;
	line->holders = 2; /* the thread, and the pool by the device */
	for (size_t i = 0; i < PLACES; i++)
		line->places[i].buffer = line->memory + i * PAGECIPHER_PAGE_BYTES_MOST;
	error = signals_start_thread(&line->thread, line_main, line);
	if (error) {
		syscall(SYS_munmap, memory, memory_bytes);
		free(line);
		return error;
	}
	atomic_fetch_add(&device->holders, 1);
	device->line = line;
	return SECPOOL_OK;
}

/* ---- workers ---- */

/* A free place; NULL when the device was given up meanwhile. */
static struct access_place *take_place(struct device *device)
{
	while (device_usable(device)) {
		for (unsigned i = 0; i < PLACES; i++)
			if (step(&device->line->places[i], PLACE_FREE, PLACE_TAKEN))
				return &device->line->places[i];
		clock_sleep_ns(LOOK_NS / 10);
	}
	return NULL;
}

/* The device was given up: whoever has the place last frees it. False when the access was done after all. */
static bool abandon(struct access_place *place)
{
	return step(place, PLACE_QUEUED, PLACE_FREE) || step(place, PLACE_RUNNING, PLACE_ABANDONED);
}

static enum secpool_error run_place(struct device *device, struct access_place *place)
{
	uint32_t state;

	atomic_store(&place->state, PLACE_QUEUED);
	give_work(device->line);
	while ((state = atomic_load(&place->state)) != PLACE_DONE) {
		if (!device_usable(device) && abandon(place))
			return SECPOOL_E_DEVICE_GONE;
		spinlock_futex_wait_most(&place->state, state, LOOK_NS);
	}
	return SECPOOL_OK;
}

enum secpool_error prober_read(struct device *device, uint64_t offset, void *to, size_t bytes)
{
	struct access_place *place = take_place(device);
	enum secpool_error error;

	if (!place)
		return SECPOOL_E_DEVICE_GONE;
	place->operation = READ;
	place->offset = offset;
	place->bytes = bytes;
	if (run_place(device, place) != SECPOOL_OK)
		return SECPOOL_E_DEVICE_GONE;
	error = place->error;
	if (!error)
		memcpy(to, place->buffer, bytes);
	atomic_store(&place->state, PLACE_FREE);
	return error;
}

enum secpool_error prober_write(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	struct access_place *place = take_place(device);
	enum secpool_error error;

	if (!place)
		return SECPOOL_E_DEVICE_GONE;
	place->operation = WRITE;
	place->offset = offset;
	place->bytes = bytes;
	memcpy(place->buffer, from, bytes);
	if (run_place(device, place) != SECPOOL_OK)
		return SECPOOL_E_DEVICE_GONE;
	error = place->error;
	atomic_store(&place->state, PLACE_FREE);
	return error;
}

bool prober_seen_alive(struct device *device)
{
	struct access_place *place = take_place(device);
	bool alive;

	if (!place)
		return false;
	place->operation = LOOK_ALIVE;
	if (run_place(device, place) != SECPOOL_OK)
		return false;
	alive = place->error == SECPOOL_OK;
	atomic_store(&place->state, PLACE_FREE);
	return alive;
}

/* ---- the prober ---- */

static void look(struct prober *prober, struct device *device)
{
	struct prober_line *line = device->line;
	uint64_t turn = atomic_load(&line->turn);

	line->late_turns = turn & 1 && turn == line->seen_turn ? line->late_turns + 1 : 0;
	line->seen_turn = turn;
	if (line->late_turns >= prober->gone_turns) {
		device_give_up(device, MSG_CAUSE_STUCK);
		service_look(line->service);
	} else if (line->late_turns >= prober->suspect_turns) {
		atomic_store(&device->suspect, true);
		line->calm_turns = 0;
	} else if (atomic_load(&device->suspect) && ++line->calm_turns >= CALM_TURNS) {
		atomic_store(&device->suspect, false);
	}
	if (!(turn & 1)) {
		atomic_store(&line->probe, true);
		give_work(line);
	}
}

/* A device that was given up for being late, and by us alone. */
static void look_again(struct device *device)
{
	struct prober_line *line = device->line;

	if (atomic_load(&line->probe) || atomic_load(&line->turn) & 1) {
		line->back_turns = 0;
		return;
	}
	line->back_turns = atomic_load(&line->answered) ? line->back_turns + 1 : 0;
	if (line->back_turns >= CALM_TURNS && !atomic_exchange(&device->back, true))
		service_look(line->service);
	atomic_store(&line->probe, true);
	give_work(line);
}

static void *prober_main(void *arg)
{
	struct prober *prober = arg;

	signals_enter_handler();
	while (!atomic_load(&prober->stop)) {
		for (struct device *d = atomic_load(&prober->pool->devices); d; d = d->older)
			if (device_usable(d))
				look(prober, d);
			else if (atomic_load(&d->unreplaced) && d->cause == MSG_CAUSE_STUCK)
				look_again(d);
		spinlock_futex_wait_most(&prober->stop, 0, prober->turn_ns);
	}
	return NULL;
}

enum secpool_error prober_start(struct secpool *pool, uint32_t suspect_after_ms,
	uint32_t gone_after_ms, struct prober **ret_prober)
{
	struct prober *prober;
	uint32_t turn_ms = suspect_after_ms / 4;
	enum secpool_error error;

	if (suspect_after_ms == 0 || gone_after_ms <= suspect_after_ms)
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd's bounds for devices make no sense");
	prober = calloc(1, sizeof *prober);
	if (!prober)
		return os_error("the prober");
	turn_ms = turn_ms == 0 ? 1 : turn_ms > TURN_MOST_MS ? TURN_MOST_MS : turn_ms;
	prober->pool = pool;
	prober->turn_ns = (uint64_t)turn_ms * CLOCK_NS_PER_MS;
	prober->suspect_turns = (suspect_after_ms + turn_ms - 1) / turn_ms;
	prober->gone_turns = (gone_after_ms + turn_ms - 1) / turn_ms;
	error = signals_start_thread(&prober->thread, prober_main, prober);
	if (error)
		free(prober);
	else
		*ret_prober = prober;
	return error;
}

static void end_line(struct device *device)
{
	struct prober_line *line = device->line;
	struct timespec until;

	atomic_store(&line->stop, true);
	give_work(line);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)END_NS;
	if (until.tv_nsec >= (long)CLOCK_NS_PER_S) {
		until.tv_nsec -= (long)CLOCK_NS_PER_S;
		until.tv_sec++;
	}
	if (pthread_timedjoin_np(line->thread, NULL, &until) != 0)
		pthread_detach(line->thread);
	drop_line(line);
	device->line = NULL;
}

void prober_stop(struct prober *prober)
{
	if (!prober)
		return;
	atomic_store(&prober->stop, 1);
	spinlock_futex_wake(&prober->stop, 1);
	pthread_join(prober->thread, NULL);
	for (struct device *d = atomic_load(&prober->pool->devices); d; d = d->older)
		device_give_up(d, MSG_CAUSE_REMOVED); /* what waits for it waits no longer */
	for (struct device *d = atomic_load(&prober->pool->devices); d; d = d->older)
		end_line(d);
	free(prober);
}
