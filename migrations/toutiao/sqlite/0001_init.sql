-- The tables that the statistics are counted from, under the names and uniques that the
-- application has always used, and its orders. Ids of users, articles, comments and orders are
-- given by the application (snowflake); instants of orders are microseconds UTC. No column has a
-- default that asks the database for the time.

create table user_basic (
    user_id bigint not null primary key,
    account varchar(20),
    email varchar(20),
    status smallint not null default 1,
    mobile char(11) not null unique,
    password varchar(93),
    user_name varchar(32) not null unique,
    profile_photo varchar(128),
    last_login timestamp,
    is_media smallint not null default 0,
    is_verified smallint not null default 0,
    introduction varchar(50),
    certificate varchar(30)
);

-- relation: 0 cancelled, 1 follows, 2 on the blacklist. user_id is who follows.
create table user_relation (
    relation_id integer not null primary key,
    user_id bigint not null,
    target_user_id bigint not null,
    relation smallint not null default 0,
    create_time timestamp not null,
    update_time timestamp not null,
    unique (user_id, target_user_id)
);
create index user_relation_target on user_relation (target_user_id, relation);

-- status: 0 draft, 1 to review, 2 approved, 3 rejected, 4 deleted, 5 banned.
create table news_article_basic (
    article_id bigint not null primary key,
    user_id bigint not null,
    channel_id integer not null,
    title varchar(128) not null,
    cover text not null,
    is_advertising smallint not null default 0,
    status smallint not null default 0,
    reviewer_id integer,
    review_time timestamp,
    delete_time timestamp,
    reject_reason varchar(200),
    allow_comment smallint not null default 1,
    create_time timestamp not null,
    update_time timestamp not null
);
create index news_article_basic_user on news_article_basic (user_id, status);

create table news_collection (
    collection_id integer not null primary key,
    user_id bigint not null,
    article_id bigint not null,
    is_deleted smallint not null default 0,
    create_time timestamp not null,
    update_time timestamp not null,
    unique (user_id, article_id)
);
create index news_collection_article on news_collection (article_id, is_deleted);

-- attitude: null withdrawn, 0 dislikes, 1 likes.
create table news_attitude (
    attitude_id integer not null primary key,
    user_id bigint not null,
    article_id bigint not null,
    attitude smallint,
    create_time timestamp not null,
    update_time timestamp not null,
    unique (user_id, article_id)
);
create index news_attitude_article on news_attitude (article_id, attitude);

-- status: 0 to review, 1 approved, 2 rejected, 3 deleted. parent_id is null for a comment on the
-- article itself, else the comment that is replied to.
create table news_comment (
    comment_id bigint not null primary key,
    user_id bigint not null,
    article_id bigint not null,
    parent_id bigint,
    content varchar(200) not null,
    is_top smallint not null default 0,
    status smallint not null default 0,
    create_time timestamp not null
);
create index news_comment_article on news_comment (article_id, status);
create index news_comment_parent on news_comment (parent_id, status);

create table news_comment_liking (
    liking_id integer not null primary key,
    user_id bigint not null,
    comment_id bigint not null,
    is_deleted smallint not null default 0,
    create_time timestamp not null,
    update_time timestamp not null,
    unique (user_id, comment_id)
);
create index news_comment_liking_comment on news_comment_liking (comment_id, is_deleted);

-- amount is in fen, a hundredth of a yuan.
create table orders (
    id bigint not null primary key,
    user_id bigint not null,
    amount bigint not null check (amount > 0),
    status varchar(16) not null check (status in ('pending', 'paid', 'expired', 'cancelled')),
    created_at bigint not null,
    expires_at bigint not null,
    paid_at bigint
);
create index orders_overdue on orders (status, expires_at);
