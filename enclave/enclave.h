/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the enclave: the sandboxed process that holds the keys. The key manager's front calls enclave_start first of all, before it
 * has read anything, and then talks to it over a socket (docs/wire.md, the ENC_ messages) with sock_call.
 *
 * Processes: starter (becomes the front) -> guardian -> enclave -> verifier. The guardian holds the enclave as its ptrace tracee with PTRACE_O_EXITKILL and does nothing else: so nobody else can
 * attach to the enclave, not even root, and it dies with its guardian. The verifier parses outside evidence; it has no keys and no descriptors but its socket.
 * The enclave unseals or provisions its root key, opens the listening socket for clients (so that SO_PEERCRED names it), then enters its seccomp sandbox, and only then says it is ready.
 * Threads: call from a single-threaded process.
 */
#ifndef SECPOOL_ENCLAVE_ENCLAVE_H
#define SECPOOL_ENCLAVE_ENCLAVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"
#include "lib/wire/msg.h"
#include "policy/policy.h"

/*
 * Where the enclave's audit is kept: the front appends each line (without its line end) to a file; wait: it is on disk when this returns. On error nothing was appended, and what
 * the line tells of is not done. No callback: the enclave does not start.
 */
struct enclave_audit {
	enum secpool_error (*keep)(void *arg, const char *line, bool wait);
	void *arg;
};

/* Before the start, the store is moved to the TPM of now (recover.h). */
struct enclave_recover {
	int key_fd;             /* the recovery key's text; above stderr */
	uint64_t generation;    /* that the store is of, by the operator's word */
	const char *audit_head; /* the digest of its audit's last record, in hex, the same */
	uint64_t next;          /* the generation that it will be of */
};

struct enclave_options {
	int policy_fd;            /* the policy file, opened by the starter */
	const char *policy_name;  /* for messages */
	const char *tpm;          /* tpm_open's `where` */
	const char *state_dir;    /* holds root.sealed, nodes, wraps, signer.wrapped, anchor.pem */
	const char *socket_path;  /* the clients' socket */
	struct enclave_audit audit;
	bool new_audit;           /* the operator begins a new audit: the one before may be missing */
	int recovery_fd;          /* where the enclave writes the text of a new recovery key, above stderr; 0: nowhere */
	const struct enclave_recover *recover; /* NULL: none */
	bool store_exists;        /* the front's directory exists: then a missing root.sealed is an error, never a new root */
};

struct enclave {
	int socket;     /* requests */
	struct enclave_audit audit;
	int listener;   /* clients' connections, to accept */
	pid_t guardian; /* the child to wait for: it ends when the enclave ends */
	pid_t pid;      /* the enclave */
	bool provisioned; /* this start made a new root key */
	bool recovered; /* no generation was made since the store was recovered */
	uint64_t generation; /* of the key tree that was opened */
};

/*
 * The very first statement of a program that calls enclave_start (the daemon, a test): the guardian and the enclave are that same program, executed anew, so that
 * they begin with an empty address space. True when this process is one of them: it has done its work, and main returns *ret_status at once.
 * argc, argv: main's. False, with nothing done, in every other process.
 */
bool enclave_is_child(int argc, char **argv, int *ret_status);

/*
 * Starts the processes and waits until the enclave is ready (at most 60 s, and ten minutes more where a recovery key is typed).
 * Errors: what kept it from starting, with the enclave's own sentence: SECPOOL_E_TPM, SECPOOL_E_POLICY, SECPOOL_E_STORE (root.sealed is missing or damaged),
 * SECPOOL_E_SELFTEST, SECPOOL_E_NO_SECRET_MEMORY ... Nothing is left running.
 */
enum secpool_error enclave_start(const struct enclave_options *options, struct enclave *ret_enclave) MUST_USE;

/*
 * Whether enclave_start would take this policy: the files that it names (devices.ek_ca) are there and good. For a policy that is to be used later.
 * Errors: SECPOOL_E_POLICY naming the file.
 */
enum secpool_error enclave_check_policy(const struct policy *policy) MUST_USE;

/*
 * Sends a request to the enclave and waits for its answer as sock_exchange does; meanwhile keeps the records that the enclave sends (ENC_AUDIT). wait_ns: without a word from it.
 */
enum secpool_error enclave_exchange(int socket, const struct enclave_audit *audit, struct msg *request, const int *fds, unsigned fd_count,
	uint32_t want, struct msg *ret_answer, uint64_t wait_ns) MUST_USE;

/* Asks it to end (ENC_STOP), waits 2 s, then kills; waits for the guardian. */
void enclave_stop(struct enclave *enclave);

#endif
