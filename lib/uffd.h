/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd(2): the only file that knows it. What the kernel has is probed when it is opened; MOVE (6.8) and POISON (6.6) have fallbacks.
 *
 * EAGAIN, EEXIST, ENOENT and short results are normal and handled here. Functions work on whole ranges of 4 KiB kernel pages; a pool page of
 * 2 MiB is a range of 512 of them. Threads: any that share the descriptor table in which uffd_open was called.
 */
#ifndef SECPOOL_UFFD_H
#define SECPOOL_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/base/err.h"

struct uffd {
	int fd;
	int empty_fd;  /* an empty memfd, mapped where POISON is missing */
	bool has_move;
	bool has_poison;
	bool has_vector; /* process_madvise on oneself drops scattered pages with one flush of the TLBs */
	bool is_inline;  /* a fault is a SIGBUS in the faulting thread; nothing is to be read, and nobody to be woken */
	bool user_only;  /* the kernel's own faults are not served (UFFD_USER_MODE_ONLY): a system call on a missing page is EFAULT */
};

/* A fault as read from the descriptor. */
struct uffd_fault {
	uintptr_t address;
	int32_t thread; /* who faulted: a thread id */
	bool write;
	bool protect; /* a write to a write-protected page; else the page is missing */
};

/* How uffd_open goes about it: faults as signals; features that a caller does without, to exercise what older kernels do. */
enum { UFFD_WITHOUT_MOVE = 1, UFFD_WITHOUT_POISON = 2, UFFD_WITHOUT_VECTOR = 4, UFFD_INLINE = 8 };

/*
 * device_fd: an open /dev/userfaultfd (borrowed), or -1. Without it, or when it does not work, the kernel is asked for a descriptor, then for one of the program's own
 * faults alone, which it gives to everybody (userfaultfd(2), Linux 5.11). how: a mask of the above.
 * Errors: SECPOOL_E_NO_FAULTFD with what to do.
 */
enum secpool_error uffd_open(struct uffd *uffd, int device_fd, unsigned how) MUST_USE;
void uffd_close(struct uffd *uffd);

/* Faults of missing and write-protected pages in the range come to us from now on. */
enum secpool_error uffd_register(const struct uffd *uffd, void *start, size_t bytes) MUST_USE;

/* Waits for one fault. Errors: SECPOOL_E_NO_EVENT when a signal came; SECPOOL_E_CLOSED when the descriptor does not work any more. */
enum secpool_error uffd_read(const struct uffd *uffd, struct uffd_fault *ret_fault) MUST_USE;

enum { UFFD_READ_MOST = 16 };

/* The same for all faults that wait, `most` (up to UFFD_READ_MOST) at the most; *ret_count is at least 1. */
enum secpool_error uffd_read_many(const struct uffd *uffd, struct uffd_fault *ret_faults, unsigned most, unsigned *ret_count) MUST_USE;

/*
 * Maps a copy of `from` at the missing range and wakes who waits for it (in fault mode inline nobody can). protect: write-protected. An existing page is left as it is.
 * Errors: SECPOOL_E_SYSTEM, SECPOOL_E_NO_MEMORY; part of the range may be mapped then.
 */
enum secpool_error uffd_copy(const struct uffd *uffd, void *to, const void *from, size_t bytes, bool protect) MUST_USE;

/*
 * Takes the pages from one registered range to another, which the caller knows to be missing; there they are writable. On error everything is where it was.
 * Errors: SECPOOL_E_BUSY (pinned by the kernel or shared: leave it resident), SECPOOL_E_NOT_FOUND (nothing is mapped there).
 */
enum secpool_error uffd_move(const struct uffd *uffd, void *to, void *from, size_t bytes) MUST_USE;

/* Write-protects mapped pages, or ends that and wakes the writers. */
enum secpool_error uffd_protect(const struct uffd *uffd, void *start, size_t bytes) MUST_USE;
enum secpool_error uffd_unprotect(const struct uffd *uffd, void *start, size_t bytes) MUST_USE;

/* Lets the threads that wait for the range try again. */
void uffd_wake(const struct uffd *uffd, void *start, size_t bytes);

/* Every access to the missing range raises SIGBUS from now on; wakes who waits. */
enum secpool_error uffd_poison(const struct uffd *uffd, void *start, size_t bytes) MUST_USE;

/* Drops the frames of a locked range; afterwards it is missing. */
enum secpool_error uffd_drop(void *start, size_t bytes) MUST_USE;

enum { UFFD_DROP_MOST = 1024 /* UIO_MAXIOV, the most that process_madvise(2) takes */ };

/*
 * The same for up to UFFD_DROP_MOST ranges, with one flush of the TLBs where the kernel can (Linux 6.13 drops, 6.16 flushes once): a flush interrupts every CPU
 * that runs the program, 10 us each in the virtual machine where it was measured. Errors: SECPOOL_E_SYSTEM: some ranges may not have been dropped.
 */
enum secpool_error uffd_drop_many(const struct uffd *uffd, const struct iovec *ranges, unsigned count) MUST_USE;

/* Whether the page at the address is mapped now. */
bool uffd_present(void *page);

#endif
