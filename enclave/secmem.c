/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/secmem.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "enclave/secheap.h"
#include "lib/base/os.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* linux/fcntl.h, 5.1 */
#endif

enum { PAGE = 4096 };

/* What a memfd that stands in for secret memory must be sealed with: nobody can shrink it under us or write to it again. */
enum { FALLBACK_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL };

/* A page that receivers read too: freeing our mapping of it must not wipe theirs. */
struct shared_page {
	void *page;
	struct shared_page *next;
};

/* Written by secmem_init alone, before other threads. */
static struct {
	bool chosen; /* the next two are set */
	bool ready;
	bool secret;
	enum secmem_fallback fallback;
} state;

/* Protects: shared_pages. */
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared_page *shared_pages;

static size_t whole_pages(size_t bytes)
{
	return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static enum secpool_error open_secret(int *ret_fd)
{
	int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

	if (fd < 0) {
		enum secpool_error ignored = os_error("memfd_secret");

		(void)ignored;
		return err_set(SECPOOL_E_NO_SECRET_MEMORY,
			"%s: boot with secretmem.enable=1, or allow memfd_without_secret in the "
			"policy",
			err_detail());
	}
	*ret_fd = fd;
	return SECPOOL_OK;
}

/* The limit is the usual reason why locked memory can't be had; mlock(2) says ENOMEM or EAGAIN, mmap(2) EAGAIN. */
static enum secpool_error lock_error(const char *call, size_t bytes)
{
	bool limit = os_would_block();
	enum secpool_error error = os_error("%s of %zu bytes of secret memory", call, bytes);

	if (!limit && error != SECPOOL_E_NO_MEMORY && error != SECPOOL_E_DENIED)
		return error;
	return err_set(
		SECPOOL_E_NO_LOCKED_MEMORY, "%s: raise RLIMIT_MEMLOCK (ulimit -l)", err_detail());
}

static enum secpool_error keep_private(void *at, size_t bytes)
{
	if (madvise(at, bytes, MADV_DONTFORK) != 0 || madvise(at, bytes, MADV_DONTDUMP) != 0)
		return os_error("madvise of secret memory");
	return SECPOOL_OK;
}

/*
 * Has the kernel make the pages now. Linux 6.1.192 holds memfd_secret against RLIMIT_MEMLOCK when a page is made, not when it is mapped (make check-vm-tests): a store would raise SIGBUS where a system call
 * that stores says EFAULT.
 */
static enum secpool_error make_pages(uint8_t *pages, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += PAGE) {
		if (syscall(SYS_getrandom, pages + at, 1, 0) != 1)
			return err_set(SECPOOL_E_NO_LOCKED_MEMORY,
				"%zu bytes of secret memory: the kernel gives %zu: raise "
				"RLIMIT_MEMLOCK (ulimit -l)",
				bytes, at);
		pages[at] = 0;
	}
	return SECPOOL_OK;
}

/*
 * Maps bytes (whole pages) between two guard pages: of fd, or anonymous ones when fd is -1. memfd_secret pages are locked by their nature
 * (memfd_secret(2)), others by `lock`.
 */
static enum secpool_error map_guarded(
	int fd, size_t bytes, int protection, bool lock, void **ret_pages)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	uint8_t *all = mmap(NULL, bytes + 2 * PAGE, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *pages;

	if (all == MAP_FAILED)
		return os_error("mmap of %zu bytes of address space", bytes);
	pages = all + PAGE;
	if (mmap(pages, bytes, protection, kind | MAP_FIXED, fd, 0) == MAP_FAILED) {
		error = lock_error("mmap", bytes);
		goto out;
	}
	/* the system call itself: sanitizers make mlock() do nothing */
	if (lock && syscall(SYS_mlock, pages, bytes) != 0) {
		error = lock_error("mlock", bytes);
		goto out;
	}
	error = keep_private(all, bytes + 2 * PAGE);
	if (!error && !lock && (protection & PROT_WRITE))
		error = make_pages(pages, bytes);
	if (error)
		goto out;
	*ret_pages = pages;
	error = SECPOOL_OK;
out:
	if (error)
		munmap(all, bytes + 2 * PAGE);
	return error;
}

static void unmap_guarded(const void *pages, size_t bytes)
{
	munmap((uint8_t *)(uintptr_t)pages - PAGE, bytes + 2 * PAGE);
}

enum secpool_error secmem_init(enum secmem_fallback fallback)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	int probe = -1;

	if (state.ready) {
		if (fallback == state.fallback || state.secret)
			return SECPOOL_OK;
		return err_set(SECPOOL_E_NO_SECRET_MEMORY,
			"secret memory is in use already, as locked memory without memfd_secret");
	}
	error = open_secret(&probe);
	if (error && fallback != SECMEM_ALLOW_LOCKED)
		return error;
	state.secret = !error;
	state.fallback = fallback;
	state.chosen = true;
	os_close(&probe);
	error = secheap_init();
	if (error)
		return error;
	/* no configuration file, and no exit handler that would run when our pages are gone */
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT |
					OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS,
		    NULL) != 1)
		return err_set(SECPOOL_E_CRYPTO, "OpenSSL could not be initialised");
	state.ready = true;
	return SECPOOL_OK;
}

bool secmem_is_secret(void)
{
	return state.secret;
}

enum secpool_error secmem_new_pages(size_t bytes, void **ret_pages)
{
	enum secpool_error error;
	int fd = -1;

	if (bytes == 0 || bytes > SIZE_MAX / 2)
		return err_set(SECPOOL_E_INVALID, "%zu bytes of secret memory", bytes);
	if (!state.chosen)
		return err_set(SECPOOL_E_INTERNAL, "secret memory is asked for before secmem_init");
	bytes = whole_pages(bytes);
	if (!state.secret)
		return map_guarded(-1, bytes, PROT_READ | PROT_WRITE, true, ret_pages);
	error = open_secret(&fd);
	if (error)
		return error;
	error = ftruncate(fd, (off_t)bytes) == 0
			? map_guarded(fd, bytes, PROT_READ | PROT_WRITE, false, ret_pages)
			: os_error("ftruncate of secret memory to %zu bytes", bytes);
	os_close(&fd);
	return error;
}

/* Takes the page's row out of the list of shared ones; false if it has none. */
static bool forget_shared(const void *page)
{
	struct shared_page *row = NULL;

	pthread_mutex_lock(&shared_lock);
	for (struct shared_page **at = &shared_pages; *at; at = &(*at)->next) {
		if ((*at)->page == page) {
			row = *at;
			*at = row->next;
			break;
		}
	}
	pthread_mutex_unlock(&shared_lock);
	secmem_free(row);
	return row != NULL;
}

void secmem_free_pages(void *pages, size_t bytes)
{
	if (!pages)
		return;
	bytes = whole_pages(bytes);
	/* the kernel clears a shared page when its last holder is gone */
	if (!forget_shared(pages))
		secmem_wipe(pages, bytes);
	unmap_guarded(pages, bytes);
}

void *secmem_new(size_t bytes)
{
	return secheap_new(bytes);
}

void secmem_free(void *memory)
{
	secheap_free(memory);
}

/* One page under a descriptor: memfd_secret, or where that is missing a memfd. */
static enum secpool_error open_shared(int *ret_fd)
{
	enum secpool_error error;
	int fd = -1;

	if (state.secret) {
		error = open_secret(&fd);
		if (error)
			return error;
	} else {
		fd = (int)syscall(SYS_memfd_create, "secpool-key", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (fd < 0)
			return os_error("memfd_create");
	}
	if (ftruncate(fd, PAGE) != 0) {
		error = os_error("ftruncate of a key page");
		os_close(&fd);
		return error;
	}
	*ret_fd = fd;
	return SECPOOL_OK;
}

enum secpool_error secmem_new_shared(int *ret_fd, void **ret_page)
{
	enum secpool_error error = SECPOOL_E_INTERNAL;
	struct shared_page *row = secmem_new(sizeof *row);
	void *page = NULL;
	int fd = -1;

	if (!row)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for a key page");
	error = open_shared(&fd);
	if (error)
		goto out;
	error = map_guarded(fd, PAGE, PROT_READ | PROT_WRITE, !state.secret, &page);
	if (error)
		goto out;
	/* after our own mapping is there, no other may write (memfd_create(2)); memfd_secret has a fixed size and no seals */
	if (!state.secret && fcntl(fd, F_ADD_SEALS, FALLBACK_SEALS) != 0) {
		error = os_error("sealing a key page");
		goto out;
	}
	row->page = page;
	pthread_mutex_lock(&shared_lock);
	row->next = shared_pages;
	shared_pages = row;
	pthread_mutex_unlock(&shared_lock);
	row = NULL;
	*ret_page = page;
	page = NULL;
	*ret_fd = fd;
	fd = -1;
	error = SECPOOL_OK;
out:
	if (page)
		unmap_guarded(page, PAGE);
	os_close(&fd);
	secmem_free(row);
	return error;
}

/* Whether a descriptor from another process is what secmem_new_shared makes, and of which kind. */
static enum secpool_error check_shared(int fd, bool *ret_secret)
{
	struct statfs fs;
	struct stat file;
	int seals;

	if (fstat(fd, &file) != 0 || fstatfs(fd, &fs) != 0)
		return os_error("the key's descriptor");
	if (file.st_size != PAGE)
		return err_set(SECPOOL_E_NO_SECRET_MEMORY, "a key's descriptor is not one page");
	*ret_secret = (unsigned long)fs.f_type == SECRETMEM_MAGIC;
	if (*ret_secret)
		return SECPOOL_OK;
	seals = fcntl(fd, F_GET_SEALS);
	if (state.fallback == SECMEM_ALLOW_LOCKED && seals >= 0 &&
		(seals & FALLBACK_SEALS) == FALLBACK_SEALS)
		return SECPOOL_OK;
	return err_set(SECPOOL_E_NO_SECRET_MEMORY, "a key's descriptor is not secret memory");
}

enum secpool_error secmem_map_shared(int fd, const void **ret_page)
{
	bool secret = false;
	enum secpool_error error = check_shared(fd, &secret);
	void *page = NULL;

	if (error)
		return error;
	error = map_guarded(fd, PAGE, PROT_READ, !secret, &page);
	if (error)
		return error;
	*ret_page = page;
	return SECPOOL_OK;
}

void secmem_unmap_shared(const void *page)
{
	if (page)
		unmap_guarded(page, PAGE);
}

void secmem_wipe(void *memory, size_t bytes)
{
	explicit_bzero(memory, bytes);
}
