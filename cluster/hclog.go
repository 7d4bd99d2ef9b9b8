package cluster

import (
	"fmt"
	"io"
	"log"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// raftLogger lets raft write to zap. raft says at Info and Warn what is the
// ordinary life of an election; this package logs in a line of its own what an
// operator should see, so everything short of an error goes one level down.
type raftLogger struct {
	log     *zap.SugaredLogger
	name    string
	implied []any
}

func newRaftLogger(l *zap.Logger) hclog.Logger {
	return &raftLogger{log: l.WithOptions(zap.AddCallerSkip(1)).Sugar()}
}

func zapLevel(level hclog.Level) zapcore.Level {
	switch level {
	case hclog.Error:
		return zapcore.ErrorLevel
	case hclog.Warn:
		return zapcore.InfoLevel
	default:
		return zapcore.DebugLevel
	}
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	if !l.enabled(level) {
		return
	}
	clean := make([]any, len(args))
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 { // its lazy Sprintf
			a = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		clean[i] = a
	}
	l.log.Logw(zapLevel(level), msg, clean...)
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.log.Desugar().Core().Enabled(zapLevel(level))
}
func (l *raftLogger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *raftLogger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLogger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLogger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLogger) IsError() bool { return l.enabled(hclog.Error) }

func (l *raftLogger) ImpliedArgs() []any { return l.implied }
func (l *raftLogger) Name() string       { return l.name }

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{l.log.With(args...), l.name, append(l.implied[:len(l.implied):len(l.implied)], args...)}
}

func (l *raftLogger) Named(name string) hclog.Logger {
	return &raftLogger{l.log.Named(name), name, l.implied}
}

func (l *raftLogger) ResetNamed(name string) hclog.Logger { return l.Named(name) }

// The level is zap's to decide.
func (l *raftLogger) SetLevel(hclog.Level)  {}
func (l *raftLogger) GetLevel() hclog.Level { return hclog.Debug }

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return zap.NewStdLog(l.log.Desugar())
}

func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(nil).Writer()
}
