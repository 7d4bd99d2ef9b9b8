// Package seal keeps what a manager writes to its disk unreadable without a key.
//
// Everything a manager writes is sealed with its own data key, from the first
// byte on. The data key lies beside the data in one small file: in the clear,
// or, once the managers are to be locked, sealed itself with the unlock key that
// all managers share and that no disk holds. So locking, unlocking and another
// unlock key each replace that one file in one step, and never touch the data.
package seal
