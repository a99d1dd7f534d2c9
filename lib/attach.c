/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching what was sealed: seal.h. */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/giveup.h"
#include "lib/places.h"
#include "lib/region.h"
#include "lib/seal.h"
#include "lib/service.h"

struct attaching {
	struct msg_region_attach ask;
	bool owner;
	struct secpool_region *region; /* the result */
};

/* The copies that can be reached now. */
static unsigned reachable(const struct secpool_region *region, uint64_t pgno, unsigned copies)
{
	const struct placement *placement = atomic_load(&region->placement);
	unsigned there = 0;

	for (unsigned lane = 0; lane < region->lanes; lane++) {
		struct device *device;
		uint64_t at;
		if (copies & 1u << lane &&
			places_find(placement, lane, pgno * region->page_bytes, &device, &at) &&
			device_usable(device))
			there |= 1u << lane;
	}
	return there;
}

enum secpool_error seal_take_pages(struct secpool_region *region, const uint8_t *manifest)
{
	uint8_t *digests = NULL;
	enum secpool_error error = seal_new_digests(region, &digests);

	if (error)
		return error;
	/* release: seal_free takes them from here on */
	atomic_store_explicit(&region->digests, digests, memory_order_release);
	for (uint64_t pgno = 0; pgno < region->page_count; pgno++) {
		struct page *page = &region->pages[pgno];
		struct manifest_page entry;
		unsigned copies;
		if (!manifest_get_page(manifest, pgno, region->lanes, &entry))
			return err_set(SECPOOL_E_INTEGRITY,
				"the manifest says of page %llu what can't be",
				(unsigned long long)pgno);
		if (entry.version == 0)
			continue; /* the page is fresh, as it is */
		copies = reachable(region, pgno, entry.copies);
		memcpy(page->tag, entry.tag, sizeof page->tag);
		memcpy(digests + pgno * MANIFEST_DIGEST_BYTES, entry.digest, sizeof entry.digest);
		atomic_store(&page->word,
			page_word(copies ? PAGE_ABSENT : PAGE_LOST, copies, entry.version));
		if (!copies)
			atomic_fetch_add(&region->lost_pages, 1);
	}
	return SECPOOL_OK;
}

/* A private copy: what is checked is what is used. */
static enum secpool_error read_manifest(int fd, size_t bytes, uint8_t **ret_manifest)
{
	uint8_t *manifest;
	struct stat status;
	size_t done = 0;

	if (fd < 0 || fstat(fd, &status) != 0 || (uint64_t)status.st_size != bytes)
		return err_set(SECPOOL_E_INTEGRITY, "a manifest of %zu bytes was expected", bytes);
	manifest = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (manifest == MAP_FAILED)
		return os_error("memory for a manifest of %zu bytes", bytes);
	while (done < bytes) {
		ssize_t count = pread(fd, manifest + done, bytes - done, (off_t)done);
		if (count <= 0 && !(count < 0 && os_interrupted()))
			break;
		done += count > 0 ? (size_t)count : 0;
	}
	if (done < bytes) {
		syscall(SYS_munmap, manifest, bytes);
		return err_set(SECPOOL_E_INTEGRITY, "the manifest ends after %zu bytes", done);
	}
	*ret_manifest = manifest;
	return SECPOOL_OK;
}

/* The region as keymgrd says that it is, and as its manifest must say too. */
static enum secpool_error set_up(struct secpool *pool, struct attaching *attaching,
	const struct msg_region_attached *told, const uint8_t *manifest)
{
	struct region_plan plan = {.created = {.region = told->region,
					   .epoch = told->epoch,
					   .address = told->address,
					   .bytes = told->bytes},
		.page_bytes = told->page_bytes,
		.data = 1,
		.lanes = told->lanes,
		.manifest = manifest,
		.head = {.region = told->region,
			.epoch = told->epoch,
			.address = told->address,
			.bytes = told->bytes,
			.page_bytes = told->page_bytes,
			.lanes = told->lanes}};
	enum secpool_error error;

	MSG_SET(plan.head.tenant, attaching->ask.owner);
	MSG_SET(plan.head.name, attaching->ask.name);
	error = region_set_up(pool, &plan, &attaching->region);
	if (!error)
		attaching->region->owner = attaching->owner;
	return error;
}

/* Sizes that the library can work with; the manifest says whether they are right. */
static enum secpool_error check_told(const struct msg_region_attached *told)
{
	uint64_t page = told->page_bytes;

	if (page < PAGECIPHER_PAGE_BYTES_LEAST || page > PAGECIPHER_PAGE_BYTES_MOST ||
		(page & (page - 1)) != 0 || told->bytes == 0 || told->bytes % page != 0 ||
		told->bytes / page > PAGECIPHER_PGNO_MOST || told->lanes == 0 ||
		told->lanes > MSG_COPIES_MAX ||
		told->manifest_bytes != msg_manifest_bytes(told->bytes, page))
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd's sealed region makes no sense");
	return SECPOOL_OK;
}

static void run_attach(struct secpool *pool, struct service_call *call)
{
	struct attaching *attaching = call->arg;
	struct msg request = {.type = MSG_REGION_ATTACH}, answer;
	const struct msg_region_attached *told = &answer.u.region_attached;
	uint8_t *manifest = NULL;
	int fd = -1;

	request.u.region_attach = attaching->ask;
	call->error = keyclient_exchange(
		&pool->service->client, &request, -1, MSG_REGION_ATTACHED, &answer, &fd);
	if (!call->error)
		call->error = check_told(told);
	if (!call->error)
		call->error = read_manifest(fd, (size_t)told->manifest_bytes, &manifest);
	if (!call->error)
		call->error = set_up(pool, attaching, told, manifest);
	if (manifest)
		syscall(SYS_munmap, manifest, (size_t)told->manifest_bytes);
	os_close(&fd);
}

enum secpool_error secpool_region_attach(
	struct secpool *pool, const char *name, unsigned flags, struct secpool_region **ret_region)
{
	struct attaching attaching = {.owner = flags & SECPOOL_ATTACH_OWNER};
	const char *slash = name ? strchr(name, '/') : NULL, *own = slash ? slash + 1 : name;
	size_t tenant_bytes = slash ? (size_t)(slash - name) : 0;
	enum secpool_error error;

	if (!pool || !ret_region || !name || (flags & ~(unsigned)SECPOOL_ATTACH_OWNER) ||
		own[0] == '\0' || strlen(own) >= MSG_NAME_BYTES || strchr(own, '/') ||
		slash == name || tenant_bytes >= MSG_NAME_BYTES)
		return err_set(SECPOOL_E_INVALID,
			"secpool_region_attach: a pool, NAME or TENANT/NAME, flags that are known "
			"and a place for the result");
	MSG_SET(attaching.ask.name, own);
	MSG_SET(attaching.ask.owner, pool->tenant);
	if (slash) {
		memset(attaching.ask.owner, 0, sizeof attaching.ask.owner);
		memcpy(attaching.ask.owner, name, tenant_bytes);
	}
	if (attaching.owner && strcmp(attaching.ask.owner, pool->tenant) != 0)
		return err_set(SECPOOL_E_DENIED, "tenant %s does not own what %s sealed",
			pool->tenant, attaching.ask.owner);
	error = service_call(pool, run_attach, &attaching);
	if (!error)
		*ret_region = attaching.region;
	return error;
}

void seal_ended(struct secpool *pool, uint64_t id)
{
	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		if (region && region->id == id && region_still(region))
			giveup_region(pool, region);
	}
}
