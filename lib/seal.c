/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/seal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/fault.h"
#include "lib/loss.h"
#include "lib/pin.h"
#include "lib/redundancy.h"
#include "lib/region.h"
#include "lib/service.h"
#include "lib/signals.h"

/* How many pages a guest reads before it gives its place back for a moment. */
enum { GUEST_PAGES = 64 };

struct sealing {
	struct secpool_region *region;
	struct msg_region_seal ask;
	uint8_t *manifest; /* mapped, until the memory is sealed */
	uint8_t *digests;  /* for the region, once it is sealed */
	size_t bytes;
	int fd;			  /* in the service's table of descriptors */
	enum secpool_error error; /* of the program's part */
	bool unknown;		  /* keymgrd may have sealed it, or not */
};

struct granting {
	struct secpool_region *region;
	const char *tenant;
	bool revoke;
};

/* ---- pages ---- */

enum secpool_error seal_check_page(
	const struct secpool_region *region, uint64_t pgno, const uint8_t *ciphertext)
{
	/* acquire: what it points to */
	const uint8_t *digests = atomic_load_explicit(&region->digests, memory_order_acquire);
	uint8_t found[MANIFEST_DIGEST_BYTES];
	enum secpool_error error;

	if (!digests)
		return SECPOOL_OK;
	error = pagecipher_digest(ciphertext, region->page_bytes, found);
	/* public bytes */
	if (!error && memcmp(found, digests + pgno * sizeof found, sizeof found) != 0)
		error = err_set(SECPOOL_E_INTEGRITY, "page %llu is not what was sealed",
			(unsigned long long)pgno);
	return error;
}

enum secpool_error seal_refuse_write(void)
{
	return err_set(SECPOOL_E_DENIED, "the region is sealed: nobody writes to it any more");
}

static size_t digests_bytes(const struct secpool_region *region)
{
	return (size_t)region->page_count * MANIFEST_DIGEST_BYTES;
}

enum secpool_error seal_new_digests(const struct secpool_region *region, uint8_t **ret_digests)
{
	void *digests = mmap(NULL, digests_bytes(region), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (digests == MAP_FAILED)
		return os_error("digests of %llu pages", (unsigned long long)region->page_count);
	*ret_digests = digests;
	return SECPOOL_OK;
}

void seal_free(struct secpool_region *region)
{
	const uint8_t *digests = atomic_load(&region->digests);

	if (digests)
		syscall(SYS_munmap, digests, digests_bytes(region));
	atomic_store(&region->digests, NULL);
}

static void fill_head(const struct secpool_region *region, const char *tenant, const char *name,
	struct manifest_head *ret_head)
{
	*ret_head = (struct manifest_head){.region = region->id,
		.epoch = region->epoch,
		.bytes = region->bytes,
		.address = (uintptr_t)region->address,
		.page_bytes = region->page_bytes,
		.lanes = region->lanes};
	MSG_SET(ret_head->tenant, tenant);
	MSG_SET(ret_head->name, name);
}

/* ---- sealing: in the program's thread ---- */

/* Reads what the devices hold of a page, and notes it. A page that is in somebody's hand is waited for. */
static enum secpool_error note_page(
	struct worker *worker, const struct sealing *sealing, uint64_t pgno, bool *ret_done)
{
	struct secpool_region *region = sealing->region;
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load_explicit(&page->word, memory_order_acquire), now;
	struct redundancy_result result;
	struct manifest_page entry = {
		.version = page_version(seen) & ~PAGE_KEY_BIT, .copies = page_copies(seen)};
	enum secpool_error error;

	*ret_done = !page_busy(seen);
	if (!*ret_done) {
		fault_await_page(worker, page, seen);
		return SECPOOL_OK;
	}
	if (page_state(seen) == PAGE_LOST)
		return err_set(SECPOOL_E_LOST, "page %llu is lost: it can't be sealed",
			(unsigned long long)pgno);
	if (page_state(seen) == PAGE_DIRTY || (entry.version != 0 && entry.copies == 0))
		return err_set(SECPOOL_E_BUSY, "page %llu is pinned, or could not be written",
			(unsigned long long)pgno);
	if (entry.version == 0)
		return SECPOOL_OK; /* it is zeros, as the manifest is */
	if (redundancy_read(worker, region, pgno, worker->plain, &result) != SECPOOL_OK)
		return err_set(SECPOOL_E_LOST, "page %llu can't be read back from any device",
			(unsigned long long)pgno);
	/* what was read is in the worker's private memory, and was checked */
	error = pagecipher_digest(worker->ciphertext, region->page_bytes, entry.digest);
	memcpy(entry.tag, page->tag, sizeof entry.tag);
	/* acquire, a step that changes nothing: what was read before is of this word */
	now = atomic_fetch_or_explicit(&page->word, 0, memory_order_acq_rel);
	if (page_busy(now) || page_state(now) == PAGE_DIRTY ||
		page_version(now) != page_version(seen) || page_copies(now) != page_copies(seen)) {
		*ret_done = false; /* it is looked at again, as it is now */
		return error;
	}
	memcpy(sealing->digests + pgno * MANIFEST_DIGEST_BYTES, entry.digest, sizeof entry.digest);
	manifest_put_page(sealing->manifest, pgno, &entry);
	return error;
}

/* As a guest: pages from first on. *ret_next: the first that was not noted. */
static enum secpool_error note_pages(
	const struct sealing *sealing, uint64_t first, uint64_t *ret_next)
{
	struct secpool_region *region = sealing->region;
	enum secpool_error error = SECPOOL_OK;
	struct worker *worker;
	sigset_t before;
	uint64_t pgno = first;

	signals_block(&before);
	worker = worker_borrow(region->pool);
	while (!error && pgno < region->page_count && pgno - first < GUEST_PAGES) {
		bool done = false;
		error = note_page(worker, sealing, pgno, &done);
		if (!error && done)
			pgno++;
	}
	worker_give_back(worker);
	signals_restore(&before);
	*ret_next = pgno;
	return error;
}

/* The manifest is written, its root is known, and proved to be the owner's wish. */
static enum secpool_error make_manifest(struct sealing *sealing)
{
	struct secpool_region *region = sealing->region;
	uint8_t subject[PAGECIPHER_SUBJECT_BYTES] = {0};
	struct manifest_head head;
	enum secpool_error error = secpool_flush(region);

	for (uint64_t pgno = 0; !error && pgno < region->page_count;)
		error = note_pages(sealing, pgno, &pgno);
	if (error)
		return error;
	fill_head(region, region->pool->tenant, sealing->ask.name, &head);
	manifest_put_head(sealing->manifest, &head);
	error = pagecipher_digest(sealing->manifest, sealing->bytes, sealing->ask.root);
	memcpy(subject, sealing->ask.root, sizeof sealing->ask.root);
	if (!error)
		error = pagecipher_prove(keyring_current(&region->keys), PAGECIPHER_WISH_SEAL,
			subject, sealing->ask.proof);
	return error;
}

/* ---- sealing: on the service thread ---- */

static enum secpool_error protect(const struct secpool_region *region, int protection)
{
	return syscall(SYS_mprotect, region->address, region->bytes, protection) == 0
		       ? SECPOOL_OK
		       : os_error("mprotect of a region");
}

static void thaw(struct secpool *pool, struct secpool_region *region)
{
	/* what can't be made writable stays frozen: nothing is wrong then but that */
	if (protect(region, PROT_READ | PROT_WRITE) != SECPOOL_OK)
		return;
	atomic_store(&region->stage, REGION_OPEN);
	loss_resume(pool, region); /* what went meanwhile was not replaced */
}

static enum secpool_error check_pins(const struct secpool_region *region)
{
	return pins_any(region->pins) ? err_set(SECPOOL_E_BUSY, "pages of the region are pinned")
				      : SECPOOL_OK;
}

/* Nothing of the service's is under way with the region. */
static enum secpool_error check_rest(const struct secpool_region *region)
{
	if (atomic_load(&region->ended))
		return err_set(SECPOOL_E_KEY_GONE, "the region has ended");
	if (region->data > 1 || region->refill || region->heap)
		return err_set(SECPOOL_E_UNSUPPORTED,
			"a heap's region, an erasure-coded one and one that is refilled can't be "
			"sealed");
	if (region->rotation.state != ROTATION_NONE || keyring_is_turning(&region->keys) ||
		region->rebuild.active || region->move.from || region->lacks_places)
		return err_set(
			SECPOOL_E_BUSY, "the region is being moved, rebuilt or renewed: try again");
	return check_pins(region);
}

static enum secpool_error freeze(struct secpool *pool, struct secpool_region *region)
{
	enum secpool_error error = check_rest(region);

	if (error)
		return error;
	atomic_store(&region->stage, REGION_FROZEN);
	/* a pin enters its list before it looks at the stage: one of both sees the other */
	error = check_pins(region);
	if (!error) {
		workers_await(pool); /* whoever began before may still write */
		error = protect(region, PROT_READ);
	}
	if (error)
		atomic_store(&region->stage, REGION_OPEN);
	return error;
}

static enum secpool_error make_memory(struct sealing *sealing)
{
	void *at;

	sealing->bytes =
		(size_t)msg_manifest_bytes(sealing->region->bytes, sealing->region->page_bytes);
	sealing->fd = memfd_create("secpool manifest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (sealing->fd < 0 || ftruncate(sealing->fd, (off_t)sealing->bytes) != 0)
		return os_error("memory for a manifest of %zu bytes", sealing->bytes);
	at = mmap(NULL, sealing->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, sealing->fd, 0);
	if (at == MAP_FAILED)
		return os_error("map a manifest of %zu bytes", sealing->bytes);
	sealing->manifest = at;
	return seal_new_digests(sealing->region, &sealing->digests);
}

static void free_sealing(struct sealing *sealing)
{
	if (sealing->manifest)
		syscall(SYS_munmap, sealing->manifest, sealing->bytes);
	if (sealing->digests)
		syscall(SYS_munmap, sealing->digests, digests_bytes(sealing->region));
	sealing->manifest = sealing->digests = NULL;
	os_close(&sealing->fd);
}

/* The descriptor is in the service's table, the memory is everybody's. */
static void run_begin(struct secpool *pool, struct service_call *call)
{
	struct sealing *sealing = call->arg;
	struct secpool_region *region = sealing->region;
	/* one that is frozen, and that no thread is sealing: nobody knows what became of it, so it is asked for again */
	bool frozen = region_still(region);

	sealing->unknown = frozen;
	call->error = SECPOOL_OK;
	if (atomic_load(&region->stage) == REGION_SEALED)
		call->error = err_set(SECPOOL_E_EXISTS, "the region is sealed already");
	else if (region->sealing)
		call->error = err_set(SECPOOL_E_BUSY, "another thread is sealing the region");
	else if (!frozen)
		call->error = freeze(pool, region);
	if (call->error)
		return;
	sealing->ask.epoch = region->epoch;
	call->error = make_memory(sealing);
	region->sealing = !call->error;
	if (!call->error)
		return;
	free_sealing(sealing);
	if (!frozen)
		thaw(pool, region);
}

/* Whether keymgrd said no, and not that it does not know, or nothing at all. */
static bool is_refusal(enum secpool_error error)
{
	return error == SECPOOL_E_BUSY || error == SECPOOL_E_EXISTS || error == SECPOOL_E_DENIED ||
	       error == SECPOOL_E_INVALID || error == SECPOOL_E_NOT_FOUND ||
	       error == SECPOOL_E_KEY_GONE || error == SECPOOL_E_UNSUPPORTED ||
	       error == SECPOOL_E_CLOSED || error == SECPOOL_E_SESSION_EXPIRED ||
	       error == SECPOOL_E_LIMIT;
}

/* What the enclave itself says that it sealed. */
static enum secpool_error check_sealed(struct secpool *pool, const struct sealing *sealing)
{
	struct pagecipher *cipher = NULL;
	uint8_t root[PAGECIPHER_ROOT_BYTES];
	enum secpool_error error =
		region_take_key(pool, sealing->region, sealing->ask.epoch, &cipher);

	if (!error)
		error = pagecipher_owned_root(pool->tenant, sealing->ask.root, root);
	/* public bytes */
	if (!error && memcmp(pagecipher_root(cipher), root, sizeof root) != 0)
		error = err_set(SECPOOL_E_INTEGRITY, "the enclave sealed another state of it");
	pagecipher_free(cipher);
	return error;
}

/* Nobody can change the memory any more when keymgrd gets it. */
static enum secpool_error hand_over(struct secpool *pool, struct sealing *sealing)
{
	struct msg request = {.type = MSG_REGION_SEAL};
	enum secpool_error error;

	syscall(SYS_munmap, sealing->manifest, sealing->bytes);
	sealing->manifest = NULL;
	if (fcntl(sealing->fd, F_ADD_SEALS,
		    F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return os_error("seal the memory of a manifest");
	request.u.region_seal = sealing->ask;
	error = keyclient_exchange(
		&pool->service->client, &request, sealing->fd, MSG_REPLY, NULL, NULL);
	if (error) {
		sealing->unknown = sealing->unknown || !is_refusal(error);
		return error;
	}
	error = check_sealed(pool, sealing);
	sealing->unknown = error != SECPOOL_OK;
	return error;
}

/* Ends a sealing, also one whose manifest could not be made (sealing->error). */
static void run_end(struct secpool *pool, struct service_call *call)
{
	struct sealing *sealing = call->arg;
	struct secpool_region *region = sealing->region;
	char reason[ERR_DETAIL_BYTES];

	region->sealing = false;
	call->error = sealing->error ? sealing->error : hand_over(pool, sealing);
	if (!call->error) {
		/* release: what it points to */
		atomic_store_explicit(&region->digests, sealing->digests, memory_order_release);
		sealing->digests = NULL;
		region->owner = true;
		region->patrol.active = false;
		atomic_store(&region->stage, REGION_SEALED);
	}
	snprintf(reason, sizeof reason, "%s", err_detail());
	free_sealing(sealing);
	if (call->error && !sealing->unknown)
		thaw(pool, region);
	if (call->error)
		call->error = err_set(call->error, "%s", reason);
}

enum secpool_error secpool_region_seal(struct secpool_region *region, const char *name)
{
	struct sealing sealing = {.region = region, .fd = -1};
	char reason[ERR_DETAIL_BYTES];
	enum secpool_error error;

	if (!region || !name || name[0] == '\0' || strchr(name, '/') ||
		strlen(name) >= MSG_NAME_BYTES)
		return err_set(SECPOOL_E_INVALID,
			"secpool_region_seal: a region, and a name of 1 to %d bytes without a "
			"slash",
			MSG_NAME_BYTES - 1);
	sealing.ask.region = region->id;
	MSG_SET(sealing.ask.name, name);
	error = service_call(region->pool, run_begin, &sealing);
	if (error)
		return error;
	sealing.error = make_manifest(&sealing);
	snprintf(reason, sizeof reason, "%s", err_detail());
	error = service_call(region->pool, run_end, &sealing);
	/* the service says what it met; what this thread met is not known there */
	return sealing.error ? err_set(sealing.error, "%s", reason) : error;
}

/* ---- grants ---- */

static void run_grant(struct secpool *pool, struct service_call *call)
{
	const struct granting *granting = call->arg;
	struct secpool_region *region = granting->region;
	struct msg request = {.type = MSG_REGION_GRANT};
	struct msg_region_grant *ask = &request.u.region_grant;
	uint8_t subject[PAGECIPHER_SUBJECT_BYTES] = {0};

	if (atomic_load(&region->stage) != REGION_SEALED || atomic_load(&region->ended)) {
		call->error = err_set(SECPOOL_E_INVALID, "the region is not sealed");
		return;
	}
	ask->region = region->id;
	ask->revoke = granting->revoke;
	MSG_SET(ask->tenant, granting->tenant);
	memcpy(subject, granting->tenant, strlen(granting->tenant));
	call->error = granting->revoke ? SECPOOL_OK
				       : pagecipher_prove(keyring_current(&region->keys),
						 PAGECIPHER_WISH_GRANT, subject, ask->proof);
	if (!call->error)
		call->error = keyclient_call(&pool->service->client, &request, MSG_REPLY, NULL);
}

static enum secpool_error grant(struct secpool_region *region, const char *tenant, bool revoke)
{
	struct granting granting = {.region = region, .tenant = tenant, .revoke = revoke};

	if (!region || !tenant || tenant[0] == '\0' || strlen(tenant) >= MSG_NAME_BYTES)
		return err_set(SECPOOL_E_INVALID, "a region, and a tenant's name");
	return service_call(region->pool, run_grant, &granting);
}

enum secpool_error secpool_region_grant(struct secpool_region *region, const char *tenant)
{
	return grant(region, tenant, false);
}

enum secpool_error secpool_region_revoke(struct secpool_region *region, const char *tenant)
{
	return grant(region, tenant, true);
}
